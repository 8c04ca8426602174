"""Runs programs on the reference model of DISA-1, which is not part of this project, and says in lines what came of each.

usage: python3 driver.py DIRECTORY     DIRECTORY holds the model, disa_ref.py
stdin: `alone FUEL BYTES`, `all GRAIN SCHEDULES BYTES`, `one 0 BYTES` or `cases 0`, then so many bytes of source; stdout: `BYTES`, then so
many of the answer. Owns what of a run is looked at. Must not judge.
"""
import contextlib
import functools
import io
import os
import sys
import types

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import disa_ref as model

# Pages that are looked at whether the model used them or not: of private memory, of data, of the stack.
PAGES = [model.PR // 4096 + page for page in range(8)] + [model.SR // 4096 + page for page in range(5)]
PAGES += [model.STACKS // 4096]
SCHEDULE_STEPS_MAX = 10_000
# A source is assembled once, however many schedules it is run with.
model.assemble = functools.lru_cache(maxsize=4)(model.assemble)


class TooMany(Exception):
    """More schedules than asked for."""


class Chooser:
    """Stands for the model's chance: goes through all choices there are, depth first."""

    def __init__(self):
        self.path, self.at = [], 0

    def choose(self, count):
        if count == 1:
            return 0
        if self.at == len(self.path):
            self.path.append([0, count])
        if self.at > SCHEDULE_STEPS_MAX:
            raise TooMany
        choice = self.path[self.at][0]
        self.at += 1
        return choice

    def random(self):
        return 0.25 + 0.5 * self.choose(2)

    def randrange(self, count):
        return self.choose(count)

    def has_next(self):
        """Moves to the next schedule, if there is one."""
        self.at = 0
        while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
            self.path.pop()
        if self.path:
            self.path[-1][0] += 1
        return bool(self.path)


class Pending(list):
    """Where the model puts what has run: looks at the run's own variables as it does."""

    def append(self, ran):
        self.frame = dict(sys._getframe(1).f_locals)
        super().append(ran)


# Cells of the system page that the model does not fill: what a program stores there is not compared either.
UNFILLED = {0x100000128, 0x100000140}


def quads(page, contents):
    for offset in range(0, 4096, 8):
        value = int.from_bytes(contents[offset : offset + 8], "little")
        if value and page * 4096 + offset not in UNFILLED:
            yield f"m {page * 4096 + offset:x} {value:x}"


def is_exit_code(page):
    return model.ECODE <= page * 4096 < model.SR + model.SRSZ


def ranges(some):
    return " ".join(f"{base:x}+{count:x}" for base, count in some)


def alone(source, fuel):
    """The first runner of a program, up to its end: everything that it could see itself."""
    vm = model.VM(source, fuel=fuel)
    vm.pend = Pending()
    vm.dispatch(vm.ready.pop())
    seen = vm.pend.frame
    _, epoch, mode, _, kids, out = vm.pend[0]
    trap = out[0].split(": ", 1)[1] if mode == "t" else None
    # The model has moved on to the next instruction by the time one traps.
    is_before = trap is not None and trap.split()[0] in ("PC", "FUEL")
    lines = [f"end {trap or mode}", f"pc {seen['pc'] - (0 if is_before else 16):x}", f"fuel {seen['n']}"]
    if trap != "FUEL":
        lines.append(f"line {seen['line']}")
    # Nobody can tell a number printed from a text written, and only numbers end their line.
    lines.append("out " + "".join(out if trap is None else []).encode("latin1").replace(b"\n", b"").hex())
    for kid in kids:
        stack, heap, watched = (ranges(some) for some in ([kid["stack"]], kid["heap"], kid["watch"]))
        lines.append(f"kid {kid['kind']} {kid['id']} {kid['fi']:x} stack {stack} heap {heap} watched {watched}")
    pages = sorted(page for page in {*PAGES, *seen["pr"], *seen["wr"]} if not is_exit_code(page))
    for page in pages:
        is_private = page * 4096 < model.SR
        blank = bytes(4096) if is_private else vm.st.at(page, epoch)
        lines += quads(page, seen["pr" if is_private else "wr"].get(page, blank))
    return ["pages " + " ".join(f"{page:x}" for page in pages), *lines]


def whole(source, grain, chance=None):
    """A program to its end: what is left of it, but for the numbers of runners, which are given out by schedule."""
    vm = model.VM(source, grain=grain)
    if chance is not None:
        vm.rng = chance
    vm.run()
    # A watcher that was used up is left in the list of those that are told of changes, not among those that wait.
    stat = vm.stat
    lines = [f"watchers {len(vm.watch)}"]
    lines.append(" ".join(f"{name} {stat[name]}" for name in ("committed", "aborted", "trapped", "failed", "fired")))
    ends = [text for text in vm.out if text.startswith(("TRAP runner ", "FAILED runner "))]
    lines += sorted("end " + text.split(" ", 3)[3] for text in ends)
    lines += [f"out {text}" for text in vm.out if text not in ends]
    pages = sorted(page for page in {*PAGES, *vm.st.pages} if model.SR <= page * 4096 < model.STACKS)
    for page in pages:
        lines += quads(page, vm.st.at(page, vm.st.ts))
    return pages, lines


def every(source, grain, schedules):
    """What can be left of a program, over all schedules."""
    chooser, found, touched = Chooser(), set(), set()
    while True:
        if schedules == 0:
            raise TooMany
        schedules -= 1
        pages, lines = whole(source, grain, chooser)
        found.add("\n".join(lines))
        touched.update(pages)
        if not chooser.has_next():
            break
    return ["pages " + " ".join(f"{page:x}" for page in sorted(touched)), "\n--\n".join(sorted(found))]


def cases(directory):
    """The names and sources of the model's own conformance cases, which are run on the way."""
    found = []

    class Recorder(model.VM):
        def __init__(self, source):
            found.append((sys._getframe(1).f_globals["n"], source))
            super().__init__(source)

    sys.modules["disa_ref"] = types.SimpleNamespace(VM=Recorder)
    with open(os.path.join(directory, "traps.py"), encoding="utf-8") as file:
        text = file.read()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        exec(compile(text, "traps.py", "exec"), {"__name__": "traps"})
    return ["\0".join(part for case in found for part in case)]


def answer(words):
    kind, number = words[0], int(words[1])
    if kind == "cases":
        return cases(sys.argv[1])
    source = sys.stdin.buffer.read(int(words[-1])).decode()
    try:
        if kind == "alone":
            return alone(source, number)
        if kind == "all":
            return every(source, number, int(words[2]))
        pages, lines = whole(source, 8)
        return ["pages " + " ".join(f"{page:x}" for page in pages), *lines]
    except SyntaxError:
        return ["refused"]
    except TooMany:
        return ["too many schedules"]
    except Exception as error:  # Whatever it is, it is the answer: the next program may do.
        return [f"crash {type(error).__name__}: {error}"]


for request in iter(sys.stdin.buffer.readline, b""):
    reply = "\n".join(answer(request.decode().split())).encode()
    sys.stdout.buffer.write(b"%d\n" % len(reply) + reply)
    sys.stdout.buffer.flush()
