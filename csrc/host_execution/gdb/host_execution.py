# SPDX-License-Identifier: MIT
"""CUDA threads in gdb: gdb -x csrc/host_execution/gdb/host_execution.py --args PROGRAM ...

hx-threads                          where the threads are, grouped by state and line
hx-thread BLOCK THREAD [COMMAND]    a gdb command on another thread's stack; without one, bt
$hx_at(BLOCK, THREAD)               for conditions: break gemm.cuh:40 if $hx_at(2, 37)

BLOCK and THREAD are numbers in the grid and in the block, counted with x fastest.
"""

import gdb

# What hx_switch (fibers.cpp) pushes, from the saved stack pointer up.
SAVED = ["r15", "r14", "r13", "r12", "rbx", "rbp", "rip"]
WORD = 8


def blocks():
    """The blocks that run now."""
    block = gdb.parse_and_eval("hx::launched.resident")
    while int(block):
        yield block.dereference()
        block = block["next"]


def threads():
    """(block, thread) of each."""
    for block in blocks():
        first = gdb.parse_and_eval(f"((hx::Block*){int(block.address)})->threads.get()")
        for i in range(int(block["num_threads"])):
            yield block, first[i]


def state(thread):
    return str(thread["state"]).rpartition("::k")[2].lower()


def place(thread):
    if not int(thread["waits_for"]):
        return ""
    file = thread["at"]["file"].string().rpartition("/")[2]
    return f"{thread['waits_for'].string()} at {file}:{int(thread['at']['line'])}"


def current():
    return gdb.parse_and_eval("hx::current")


class Threads(gdb.Command):
    """Where the CUDA threads are."""

    def __init__(self):
        super().__init__("hx-threads", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        groups = {}
        for block, thread in threads():
            what = "running" if thread.address == current() else state(thread)
            example = f"{int(block['number'])} {int(thread['rank'])}"
            groups.setdefault((what, place(thread)), []).append(example)
        if not groups:
            print("no kernel runs")
        for (what, where), examples in groups.items():
            print(f"{len(examples):6d} {what:9s} {where:50s} block, thread: {examples[0]}")


class Thread(gdb.Command):
    """A command on the stack of one CUDA thread."""

    def __init__(self):
        super().__init__("hx-thread", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        words = argument.split(maxsplit=2)
        if len(words) < 2:
            raise gdb.GdbError("hx-thread BLOCK THREAD [COMMAND]")
        command = words[2] if len(words) == 3 else "bt"
        thread = self.find(int(words[0]), int(words[1]))
        if thread.address == current():
            gdb.execute(command)
        elif state(thread) in ("fresh", "done"):
            print(f"the thread is {state(thread)}: it has no stack")
        else:
            self.on_stack(int(thread["fiber"]["stack_pointer"]), command)

    def find(self, number, rank):
        for block, thread in threads():
            if int(block["number"]) == number and int(thread["rank"]) == rank:
                return thread
        raise gdb.GdbError("no such thread, or its block does not run now")

    def on_stack(self, stack_pointer, command):
        gdb.execute("frame 0", to_string=True)
        registers = [*SAVED, "rsp"]
        before = {r: int(gdb.parse_and_eval(f"(unsigned long)${r}")) for r in registers}
        try:
            for i, register in enumerate(SAVED):
                gdb.execute(f"set ${register} = *(unsigned long*){stack_pointer + WORD * i}")
            gdb.execute(f"set $rsp = {stack_pointer + WORD * len(SAVED)}")
            gdb.execute(command)
        finally:
            for register, value in before.items():
                gdb.execute(f"set ${register} = {value}")
            gdb.execute("frame 0", to_string=True)


class At(gdb.Function):
    """Whether the running CUDA thread is this one."""

    def __init__(self):
        super().__init__("hx_at")

    def invoke(self, number, rank):
        thread = current()
        return (
            int(thread) != 0
            and int(thread["rank"]) == int(rank)
            and int(thread["block"]["number"]) == int(number)
        )


Threads()
Thread()
At()
