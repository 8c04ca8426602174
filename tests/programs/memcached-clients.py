"""Clients of a memcached, several at once; prints what the server answered and what it kept."""
import hashlib
import socket
import sys
import threading
import time

PORT, CLIENTS, KEYS = int(sys.argv[1]), 6, 40


class Client:
    def __init__(self):
        until = time.monotonic() + 30
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=60)
                break
            except ConnectionRefusedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")

    def line(self, command):
        self.socket.sendall(command + b"\r\n")
        return self.file.readline().rstrip()

    def store(self, verb, key, value):
        return self.line(b"%s %s 0 0 %d\r\n%s" % (verb, key, len(value), value))

    def get(self, key):
        head = self.line(b"get " + key).split()
        if head == [b"END"]:
            return None
        value = self.file.read(int(head[3]) + 2)[:-2]
        assert self.file.readline() == b"END\r\n"
        return value


def work(number, answers):
    client = Client()
    said = hashlib.sha256()
    for turn in range(KEYS):
        key = b"own-%d-%d" % (number, turn)
        value = hashlib.sha256(key).hexdigest().encode() * (1 + turn * 4 % 97)
        said.update(client.store(b"set", key, value))
        said.update(client.store(b"append", key, b"+%d" % turn))
        assert client.get(key) == value + b"+%d" % turn, key
        # What all clients change: the sum is theirs, whatever the order.
        client.line(b"incr shared 3")
        client.store(b"append", b"log", b"%d," % number)
    said.update(client.line(b"delete own-%d-0" % number))
    answers[number] = said.hexdigest()


first = Client()
print(first.store(b"set", b"shared", b"0"), first.store(b"set", b"log", b""))
answers = [None] * CLIENTS
threads = [threading.Thread(target=work, args=(number, answers)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(answers)
kept = hashlib.sha256()
for number in range(CLIENTS):
    for turn in range(KEYS):
        kept.update(repr(first.get(b"own-%d-%d" % (number, turn))).encode())
print(kept.hexdigest(), first.get(b"shared").strip(), sorted(first.get(b"log").split(b",")))
