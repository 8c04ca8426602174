"""Clients of a server of files, several at once; prints what each file was."""
import hashlib
import http.client
import sys
import threading
import time

PORT, TURNS, CLIENTS, FILES = int(sys.argv[1]), int(sys.argv[2]), 4, 6


def connect():
    until = time.monotonic() + 30
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=100)
            connection.connect()
            return connection
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def work(number, seen):
    connection = connect()
    for turn in range(TURNS):
        name = f"/file-{(number + turn) % FILES}"
        connection.request("GET", name)
        answer = connection.getresponse()
        body = answer.read()
        seen.add((name, answer.status, len(body), hashlib.sha256(body).hexdigest()))
        if answer.will_close:
            connection.close()
            connection = connect()
    connection.request("GET", "/missing")
    seen.add(("/missing", connection.getresponse().status))


seen = set()
threads = [threading.Thread(target=work, args=(number, seen)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for line in sorted(seen):
    print(*line)
