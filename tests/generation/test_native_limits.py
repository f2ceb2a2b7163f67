# SPDX-License-Identifier: MIT
"""The loop in C++: Ctrl-C, and requests of absurd size."""

import resource
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch

from seq2seq_ext.generation.telling import Watch

from .models import KINDS, make

INTERRUPTED = """
import os, signal, sys, threading, time, torch
from tests.generation.models import KINDS, make, sources
model = make(torch.float32, 4001, hidden_size=96, eos=None, **KINDS[3])
src, lengths = sources(8, 9, 4001)
seen = []
options = {"callback": lambda step: seen.append(step.step)} if sys.argv[1] == "callback" else {}
if sys.argv[1] == "handler":
    def handler(number, frame):
        raise ZeroDivisionError("my own handler")
    signal.signal(signal.SIGINT, handler)
threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    model.generate(src, lengths, max_new_tokens=10**7, **options)
except (KeyboardInterrupt, ZeroDivisionError) as error:
    print(type(error).__name__, time.monotonic() - begun < 30, len(seen) > 3, flush=True)
# And it decodes as before.
print(tuple(model.generate(src, lengths, max_new_tokens=3).shape))
"""


@pytest.mark.parametrize("way", ["plain", "callback", "handler"])
def test_ctrl_c_stops_the_loop(way):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, way],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    error = "ZeroDivisionError" if way == "handler" else "KeyboardInterrupt"
    assert done.stdout.split("\n")[:2] == [f"{error} True {way == 'callback'}", "(8, 3)"], done
    assert done.stderr == ""


def test_other_threads_are_not_watched():
    """Signals are the main thread's affair; elsewhere there is nothing to ask for."""
    addresses = []
    thread = threading.Thread(target=lambda: addresses.append(Watch().address))
    thread.start()
    thread.join()
    assert addresses == [0]
    watch = Watch()
    assert watch.address != 0
    gone = weakref.ref(watch)
    watch.close()
    del watch
    assert gone() is None  # and not when the collector comes


def test_very_many_samples_take_little_memory():
    """A sample is decoded by itself: no more of them are in flight than of sources."""
    model = make(torch.float32, 50, hidden_size=64, eos=2, **KINDS[0])
    src = torch.tensor([[5, 6, 7]])
    options = {"do_sample": True, "max_new_tokens": 2, "seed": 5, "top_k": 0}
    model.generate(src, num_return_sequences=256, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = model.generate(src, num_return_sequences=2**16, **options)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    few = model.generate(src, num_return_sequences=100, **options)
    assert torch.equal(out[:100, : few.size(1)], few)
    assert len(set(map(tuple, out.tolist()))) > 100
