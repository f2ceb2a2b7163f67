# SPDX-License-Identifier: MIT
"""The loop in C++ and threads: its own, and the caller's others."""

import ctypes
import os
import sys
import threading
import time

import pytest
import torch

from seq2seq_ext import ops

from .models import ALL_KINDS, make, sources
from .test_native import expect_same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_threads_change_nothing(dtype):
    torch.manual_seed(3)
    model = make(torch.float32, 4001, hidden_size=72, **ALL_KINDS[4])
    model.prepare_for_decoding(dtype)
    src, lengths = sources(9, 9, 4001)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for options in ({}, {"num_beams": 3}, {"do_sample": True, "top_k": 0, "seed": 1}):
                options = {"max_new_tokens": 15, "return_dict_in_generate": True, **options}
                found.append(model.generate(src, lengths, **options))
    finally:
        torch.set_num_threads(threads)
    for i, other in enumerate(found[3:]):
        expect_same(other, found[i % 3], i)


def long_call():
    """Some tenths of a second of one thread."""
    torch.manual_seed(3)
    model = make(torch.float32, 4001, hidden_size=96, eos=None, **ALL_KINDS[3])
    src, lengths = sources(64, 9, 4001)
    return lambda: model.generate(src, lengths, max_new_tokens=150)


def moments_beside(call, span):
    """When this thread ran while another was in `call`, over the time that `span` tells then."""
    seen, thread = [], threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        seen.append(time.perf_counter())
        time.sleep(0)
    thread.join()
    begin, end = span
    return [(moment - begin) / (end - begin) for moment in seen]


def in_the_middle(moments):
    return sum(0.2 < moment < 0.8 for moment in moments)


def test_other_threads_run_meanwhile(monkeypatch):
    def timed(call, span):
        def inner(*arguments):
            span.append(time.perf_counter())
            found = call(*arguments)
            span.append(time.perf_counter())
            return found

        return inner

    span, held_span = [], []
    monkeypatch.setattr(ops.kernels, "decode", timed(ops.kernels.decode, span))
    assert in_the_middle(moments_beside(long_call(), span)) > 20
    # And the test would see it if the lock were held.
    held = timed(ctypes.PyDLL(None).usleep, held_span)
    assert in_the_middle(moments_beside(lambda: held(300_000), held_span)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_threads_work_than_torch_has(threads):
    def nanoseconds():
        spent = {}
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat") as file:
                spent[task] = int(file.read().split()[0])
        return spent

    torch.set_num_threads(threads)
    call = long_call()
    call()
    before, start = nanoseconds(), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, nanoseconds()
    spent = sorted((after[task] - before.get(task, 0) for task in after), reverse=True)
    assert sum(spent) < (threads + 0.1) * wall * 1e9
    assert sum(one > 0.1 * spent[0] for one in spent) == threads
    # Nobody spins on: what is left of waiting is over in a few milliseconds.
    idle = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - idle < 0.1
