"""Forks of Python: os.fork, and processes of multiprocessing that are made so."""
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time


def add_up(channel, count):
    thread = threading.Thread(target=lambda: channel.send(sum(range(count))))
    thread.start()
    thread.join()
    channel.close()
    sys.exit(4)


def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def two_generations():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        inner = os.fork()
        if inner == 0:
            os.write(writer, b"x" * 300000)
            os._exit(9)
        os.write(writer, b"inner %d" % status_of(inner))
        os._exit(8)
    os.close(writer)
    with open(reader, "rb") as stream:
        content = stream.read()
    print(len(content), content[-8:], status_of(child))


def signals():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(33))
        os.write(writer, b".")
        while True:
            signal.pause()
    os.read(reader, 1)
    time.sleep(0.05)
    os.kill(child, signal.SIGUSR1)
    print(status_of(child))


def main():
    two_generations()
    signals()
    context = multiprocessing.get_context("fork")
    processes = []
    for count in (10, 1000, 1000000):
        ours, theirs = context.Pipe()
        process = context.Process(target=add_up, args=(theirs, count))
        process.start()
        processes.append((process, ours))
    for process, ours in processes:
        print(ours.recv())
        process.join()
        print(process.exitcode)
    child = os.fork()
    if child == 0:
        print(subprocess.run(["echo", "a grandchild's program"], capture_output=True).stdout, flush=True)
        os._exit(0)
    print(status_of(child))


main()
