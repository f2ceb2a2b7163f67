# gdb -x gdb/host_execution.py build/plain : "hs-threads" lists CUDA threads by place, "hs-bt BLOCK THREAD" shows one's stack.
import gdb, collections
STATE = ['fresh', 'runnable', 'spinning', 'waiting', 'done', 'aborted']
def threads():
    v = gdb.parse_and_eval("hx::S.blocks._M_impl")
    p = v['_M_start']
    while p != v['_M_finish']:
        b = p.cast(gdb.lookup_type('hx::Block').pointer().pointer()).dereference()   # unique_ptr is one pointer
        t = b['th'].address.cast(gdb.lookup_type('hx::Thread').pointer().pointer()).dereference()
        for i in range(int(b['nthreads'])):
            yield b, t[i]
        p += 1
class HsThreads(gdb.Command):
    def __init__(self): super().__init__("hs-threads", gdb.COMMAND_STACK)
    def invoke(self, arg, tty):
        c = collections.OrderedDict()
        for b, t in threads():
            st = STATE[int(t['state'])]
            where = f"{t['what'].string()} at {t['file'].string()}:{int(t['line'])}" if int(t['what']) else ''
            c.setdefault((st, where), []).append(f"{int(b['bid']['x'])}/{int(t['linear'])}")
        for (st, w), l in c.items():
            print(f"{len(l):6d} {st:9s} {w}  e.g. block/thread {' '.join(l[:4])}")
class HsBt(gdb.Command):
    def __init__(self): super().__init__("hs-bt", gdb.COMMAND_STACK)
    def invoke(self, arg, tty):
        blk, th = (int(x) for x in arg.split())
        for b, t in threads():
            if int(b['bid']['x']) == blk and int(t['linear']) == th: break
        else: print("no such thread"); return
        if t.address == gdb.parse_and_eval("hx::hx_cur") or int(t['state']) == 0:
            gdb.execute("bt 12" if int(t['state']) else "echo not started\\n"); return
        sp = int(t['sp'])
        names = ['r15', 'r14', 'r13', 'r12', 'rbx', 'rbp', 'rip']
        save = {r: int(gdb.parse_and_eval(f"(unsigned long)${r}")) for r in names + ['rsp']}
        for i, r in enumerate(names):
            gdb.execute(f"set ${r}=*(unsigned long*){sp + 8 * i}")
        gdb.execute(f"set $rsp={sp + 56}")
        try: gdb.execute("bt 12")
        finally:
            for r, x in save.items(): gdb.execute(f"set ${r}={x}")
            gdb.execute("frame 0", to_string=True)
HsThreads(); HsBt()
