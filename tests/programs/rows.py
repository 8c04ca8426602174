"""Threads that write one database through connections of their own, and threads that read it."""
import hashlib
import os
import sqlite3
import threading

PATH = "rows.db"
WRITERS, ROUNDS, ROWS = 4, 20, 50


def connect():
    connection = sqlite3.connect(PATH, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous=off")
    return connection


def write(writer):
    connection = connect()
    for turn in range(ROUNDS):
        connection.execute("begin immediate")
        connection.executemany(
            "insert into rows values (?, ?, ?)",
            [(writer, turn * ROWS + row, hashlib.sha256(b"%d %d" % (writer, turn * ROWS + row)).hexdigest()) for row in range(ROWS)],
        )
        connection.execute("commit")
    connection.close()


def read(faults):
    connection = connect()
    for _ in range(ROUNDS):
        # A transaction is seen whole or not at all.
        for writer, count in connection.execute("select writer, count(*) from rows group by writer"):
            if count % ROWS:
                faults.append((writer, count))
    connection.close()


if os.path.exists(PATH):
    os.remove(PATH)
connect().execute("create table rows (writer int, number int, digest text, primary key (writer, number))")
faults = []
threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
threads += [threading.Thread(target=read, args=(faults,)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
connection = connect()
print(connection.execute("pragma integrity_check").fetchone()[0], faults)
digest = hashlib.sha256()
for row in connection.execute("select * from rows order by writer, number"):
    digest.update(repr(row).encode())
print(connection.execute("select count(*) from rows").fetchone()[0], digest.hexdigest())
