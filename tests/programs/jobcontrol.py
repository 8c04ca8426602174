"""Types ^Z, fg and ^C at a program in an interactive shell, as a user does.

Owns the terminal. Must not know that the program may run on several hosts.
usage: jobcontrol.py COMMAND...     COMMAND prints "counted N", ever larger; says what it saw, ends with 1 if it was not right
"""
import os, pty, re, select, shlex, sys, time

STOPPED_S = 4
LATEST_S = 20


class Terminal:
    def __init__(self):
        self.text = self.all = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "prompt> "
            os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])

    def read(self, seconds):
        if select.select([self.descriptor], [], [], seconds)[0]:
            try:
                read = os.read(self.descriptor, 65536).decode(errors="replace")
            except OSError:
                return
            self.text += read
            self.all += read

    def counted(self):
        return int(re.findall(r"counted (\d+)\r\n", self.all)[-1])

    def type(self, text):
        self.text = ""
        os.write(self.descriptor, text.encode())

    def expect(self, pattern):
        latest = time.monotonic() + LATEST_S
        while True:
            found = re.search(pattern, self.text, re.DOTALL)
            if found:
                return found
            if time.monotonic() > latest:
                print(f"no {pattern!r} within {LATEST_S} s; the terminal shows: {self.text[-400:]!r}")
                sys.exit(1)
            self.read(0.1)


terminal = Terminal()
terminal.expect("prompt> ")
terminal.type(shlex.join(sys.argv[1:]) + "\n")
for _ in range(5):
    terminal.expect(r"counted [1-9]\d*\r\n")
    terminal.text = ""
    terminal.expect(r"counted [1-9]\d*\r\n")
terminal.type("\x1a")
terminal.expect("Stopped")
before = terminal.counted()
time.sleep(STOPPED_S)
terminal.type("fg\n")
after = int(terminal.expect(r"counted (\d+)\r\n").group(1))
latest = time.monotonic() + LATEST_S
while terminal.counted() < after + 500 and time.monotonic() < latest:
    terminal.read(0.1)
later = terminal.counted()
terminal.type("\x03")
terminal.expect("prompt> ")
terminal.type("echo status $?\n")
status = terminal.expect(r"status (\d+)").group(1)
terminal.type("exit\n")
counted = after - before
is_right = status == "130" and later >= after + 500 and counted < STOPPED_S * 1000 / 2
print(f"while stopped for {STOPPED_S} s the other thread counted {counted} ms; after ^C the status was {status}")
sys.exit(0 if is_right else 1)
