"""Threads as Python programs use them: a pool that hashes outside the interpreter's lock, queues, barriers, conditions, timers.

Owns what is computed; prints results, never times. Must not know that the threads may run on several hosts.
"""
import concurrent.futures
import hashlib
import queue
import threading
import zlib

LATEST_S = 60


def digest(number):
    data = hashlib.sha512(b"%d" % number).digest() * 4096
    packed = zlib.compress(data + bytes(range(256)) * 2048, 6)
    return number, hashlib.sha256(data * 16).hexdigest(), zlib.crc32(packed)


def pool():
    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as workers:
        for number, name, check in workers.map(digest, range(24)):
            print("digest", number, name, check)
        powers = [workers.submit(pow, 3, 5_000 + number) for number in range(12)]
        done = [future.result() % 1_000_003 for future in concurrent.futures.as_completed(powers)]
        print("powers", sum(done), len(done))
        try:
            workers.submit(int, "no number").result()
        except ValueError as error:
            print("error", error)


def pipeline():
    first, second = queue.Queue(maxsize=4), queue.Queue(maxsize=4)

    def feed():
        for item in range(40):
            first.put(item)
        for _ in squares:
            first.put(None)

    def square():
        while (item := first.get()) is not None:
            second.put(item * item)
        second.put(None)

    squares = [threading.Thread(target=square) for _ in range(3)]
    for thread in [*squares, threading.Thread(target=feed)]:
        thread.start()
    total, ended = 0, 0
    while ended < len(squares):
        item = second.get(timeout=LATEST_S)
        if item is None:
            ended += 1
        else:
            total += item
    print("pipeline", total)


def meeting():
    barrier, lock, turn = threading.Barrier(4), threading.Lock(), threading.Condition()
    order = []

    def walk(number):
        for _ in range(3):
            barrier.wait(LATEST_S)
            with turn:
                turn.wait_for(lambda: len(order) % 4 == number, LATEST_S)
                with lock:
                    order.append(number)
                turn.notify_all()

    walkers = [threading.Thread(target=walk, args=(number,)) for number in range(4)]
    for walker in walkers:
        walker.start()
    for walker in walkers:
        walker.join()
    print("meeting", "".join(map(str, order)))


def timers():
    own, fired, lock = threading.local(), [], threading.Lock()

    def fire(number):
        own.number = number
        with lock:
            fired.append(own.number)

    waiting = [threading.Timer(0.01 * (number % 3), fire, (number,)) for number in range(6)]
    for timer in waiting:
        timer.start()
    for timer in waiting:
        timer.join()
    print("timers", sorted(fired), hasattr(own, "number"))


pool()
pipeline()
meeting()
timers()
print("threads left", threading.active_count())
