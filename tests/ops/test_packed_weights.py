# SPDX-License-Identifier: MIT
"""Inference keeps packed copies of the weights between calls: no change of them may go unnoticed,
by whatever means it is made."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from seq2seq_ext import nn as fast

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def fresh(layer, x):
    """What a layer of the same weights gives that no copy is kept of: training keeps none."""
    return layer(x)[0].detach()


def kept(layer, x):
    with torch.inference_mode():
        return layer(x)[0]


def must_follow(layer, x):
    expected = fresh(layer, x)
    for _ in range(2):  # packs or finds a copy; finds one
        assert torch.equal(kept(layer, x), expected)
    return expected


def make(cell, dtype, **options):
    layer = getattr(fast, cell)(19, 37, **options).to(dtype)
    return layer, torch.randn(4, 2, 19).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_every_single_weight_counts(cell, dtype):
    layer, x = make(cell, dtype)
    before = must_follow(layer, x)
    for name, weight in layer.named_parameters():
        flat = weight.data.view(-1)
        places = {0, 1, 17, 18, 19, flat.numel() // 2, flat.numel() - 1}
        for place in sorted(p % flat.numel() for p in places):
            flat[place] += 3  # by .data: no version is counted
            after = must_follow(layer, x)
            assert not torch.equal(after, before), (name, place)
            flat[place] -= 3
            before = must_follow(layer, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_signs_of_any_two_rows(dtype):
    """Top bits alone: what sums and plain products of words would cancel."""
    layer, x = make("LSTM", dtype)
    before = must_follow(layer, x)
    weight = layer.weight_ih_l0.data
    for rows in ([0, 1], [0, 2], [5, 37 + 5], [3, 3 + 2 * 37], list(range(4 * 37))):
        weight[rows] *= -1
        after = must_follow(layer, x)
        assert not torch.equal(after, before)
        weight[rows] *= -1
        assert torch.equal(must_follow(layer, x), before)


@pytest.mark.parametrize(
    "options",
    [{"proj_size": 23}, {"bidirectional": True}, {"num_layers": 3, "bias": False}],
    ids=str,
)
def test_of_every_layer_and_direction(options):
    layer, x = make("LSTM", torch.float32, **options)
    before = must_follow(layer, x)
    for name, weight in layer.named_parameters():
        weight.data[-1] += 1
        after = must_follow(layer, x)
        assert not torch.equal(after, before), name
        before = after


def test_weights_exchanged():
    """Rows, gates and matrices change places: the same words, elsewhere."""
    layer, x = make("LSTM", torch.float32)
    layer.weight_ih_l0.data = torch.randn(4 * 37, 19)
    before = must_follow(layer, x)
    for order in (torch.arange(4 * 37).flip(0), torch.arange(4 * 37).roll(37)):
        weight = layer.weight_ih_l0.data
        weight.copy_(weight[order])
        after = must_follow(layer, x)
        assert not torch.equal(after, before)
        before = after


def test_learning_between_inferences():
    layer, x = make("GRU", torch.float32)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = must_follow(layer, x)
    for _ in range(3):
        layer(x)[0].square().sum().backward()
        optimizer.step()
        after = must_follow(layer, x)
        assert not torch.equal(after, before)
        before = after


def test_other_weights_at_the_same_address():
    memory = torch.empty(4 * 37 * 19)
    for _ in range(4):
        layer, x = make("LSTM", torch.float32)
        layer.weight_ih_l0.data = memory.normal_().view(4 * 37, 19)
        must_follow(layer, x)
    # The same matrices as layers of other sizes: (4 H, I) = (36, 4) and (24, 6).
    memory.normal_()
    for hidden, inputs in ((9, 4), (6, 6), (9, 4)):
        layer = fast.LSTM(inputs, hidden)
        layer.weight_ih_l0.data = memory[: 4 * hidden * inputs].view(-1, inputs)
        layer.weight_hh_l0.data = memory[: 4 * hidden * hidden].view(-1, hidden)
        must_follow(layer, torch.randn(3, 2, inputs))


def test_by_any_number_of_threads():
    layer = fast.LSTM(64, 256)
    x = torch.randn(5, 3, 64)
    for threads in (1, 2, 1, 3):
        torch.set_num_threads(threads)
        must_follow(layer, x)
        layer.weight_hh_l0.data[200] *= 2


def test_calls_at_the_same_time():
    layer, x = make("LSTM", torch.float32)
    expected = fresh(layer, x)
    wrong = []

    def work():
        for _ in range(50):
            if not torch.equal(kept(layer, x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def memory_grown():
    """Bytes that ten turns add to the memory of a process that has had ten."""

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    x = torch.randn(1, 1, 512)
    layers = [fast.LSTM(512, 512) for _ in range(8)]
    start = 0
    for turn in range(20):
        for layer in layers:
            with torch.no_grad():
                for weight in layer.parameters():
                    weight.set_(weight.clone())  # elsewhere in memory
            must_follow(layer, x)
        if turn == 9:
            start = resident()
    return resident() - start


def test_memory_is_bounded():
    """More weights than are kept (256 MiB): the oldest copies go, and all stays right. Kept without
    a bound they would be ten times 64 MiB more. In a process of its own: what other tests have
    left on the heap moves by as much as is allowed here."""
    code = "from tests.ops.test_packed_weights import memory_grown; print(memory_grown())"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 20
