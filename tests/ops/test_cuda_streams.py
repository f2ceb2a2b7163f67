# SPDX-License-Identifier: MIT
"""What only a GPU has, and host execution cannot show: CUDA graphs, streams that run beside each
other, launches that are made by several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import seq2seq_ext
from seq2seq_ext import ops
from tests.ops.cases import Case, make

pytestmark = pytest.mark.cuda
Call = tuple[list[Tensor], Callable[[], tuple[Tensor, ...]]]  # what may change, what is run

SEQUENCES = {
    "persistent": Case("lstm", torch.bfloat16, T=12, B=9, I=40, H=200, directions=2),
    "persistent lengths": Case("gru", torch.float16, T=12, B=20, I=40, H=256, lengths="zeros"),
    "whole": Case("lstm", torch.bfloat16, T=12, B=9, I=40, H=64, lengths="ragged"),
    "stepwise": Case("gru", torch.float32, T=12, B=9, I=40, H=72),
}


def sequence(case: Case, device: str, gradients: bool) -> Call:
    problem = make(case).to(device)
    leaves = [problem.x, *problem.states, *problem.weights]

    def run() -> tuple[Tensor, ...]:
        op = getattr(ops, f"{case.cell}_sequence")
        if not gradients:
            with torch.no_grad():
                return op(problem.x, *problem.states, problem.weights, lengths=problem.lengths)
        taken = [leaf.detach().requires_grad_() for leaf in leaves]
        count = 1 + len(problem.states)
        results = op(*taken[:count], taken[count:], lengths=problem.lengths)
        return torch.autograd.grad(results[:1], taken, problem.cotangents[:1])

    return [problem.x, *problem.states], run


def pick(device: str, k: int) -> Call:
    hidden = torch.randn(11, 64, device=device, dtype=torch.bfloat16)
    weight = torch.randn(3000, 64, device=device, dtype=torch.bfloat16) / 8
    return [hidden], lambda: ops.vocab_pick(hidden, weight, k=k)


def attention(device: str) -> Call:
    query, keys = torch.randn(5, 64, device=device), torch.randn(5, 300, 64, device=device)
    return [query, keys], lambda: ops.attention_step(query, keys, keys, scale=0.125)


def loss(device: str) -> Call:
    hidden = torch.randn(30, 64, device=device)
    weight = torch.randn(500, 64, device=device) / 8
    target = torch.arange(30, device=device)

    def run() -> tuple[Tensor, ...]:
        taken = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
        value = ops.linear_cross_entropy(taken[0], taken[1], target)
        return value.detach(), *torch.autograd.grad(value, taken)

    return [hidden], run


CALLS: dict[str, Callable[[str], Call]] = {
    "pick": lambda device: pick(device, 1),
    "pick 4": lambda device: pick(device, 4),
    "pick 100": lambda device: pick(device, 100),
    "attention": attention,
    "loss": loss,
}
for name, case in SEQUENCES.items():
    CALLS[name] = lambda device, case=case: sequence(case, device, False)
    CALLS[name + ", gradients"] = lambda device, case=case: sequence(case, device, True)


def test_plans() -> None:
    """The cases are what their names say."""
    for name, case in SEQUENCES.items():
        plan = seq2seq_ext.plan_sequence(
            case.cell, case.T, case.B, case.H, case.dtype, directions=case.directions
        )
        assert plan["kernel"] == ("stepwise" if name == "stepwise" else "persistent"), name
        if name != "stepwise":
            assert (plan["unit_blocks"] == 1) == (name == "whole"), name


def captured(run: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple]:
    """A replay of what `run` queues, and the results that it fills."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph.replay, results


def change(inputs: list[Tensor]) -> None:
    for tensor in inputs:
        tensor.copy_(torch.randn_like(tensor))


@pytest.mark.parametrize("name", CALLS)
def test_replays_of_a_graph(name: str) -> None:
    """Nothing is left over from the last replay: no flag, no counter, no work memory."""
    inputs, run = CALLS[name]("cuda")
    replay, results = captured(run)
    for _ in range(3):
        change(inputs)
        replay()
        torch.testing.assert_close(results, run())


def test_graph_of_launches_with_much_and_little_shared_memory() -> None:
    """One kernel, two sizes, one graph: each launch keeps what it asked for."""
    cases = [
        Case("lstm", torch.bfloat16, T=6, B=batch, I=40, H=hidden)
        for batch, hidden in ((64, 768), (2, 200), (64, 768))
    ]
    calls = [sequence(case, "cuda", False) for case in cases]

    def run() -> tuple[Tensor, ...]:
        return tuple(result for _, call in calls for result in call())

    replay, results = captured(run)
    for inputs, _ in calls:
        change(inputs)
    replay()
    torch.testing.assert_close(results, run())


@pytest.mark.parametrize("name", CALLS)
def test_current_stream(name: str) -> None:
    """Work is queued behind what waits on the current stream, not on the default one."""
    inputs, run = CALLS[name]("cuda")
    expected = run()
    kept = [tensor.clone() for tensor in inputs]
    for tensor in inputs:
        tensor.zero_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # about 10 ms
        for tensor, values in zip(inputs, kept, strict=True):
            tensor.copy_(values)
        got = run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(got, expected)


def test_two_threads() -> None:
    """Each with a stream of its own, and kernels of different shared memory."""
    names = ["persistent", "persistent lengths"]
    calls = [CALLS[name]("cuda")[1] for name in names]
    expected = [call() for call in calls]
    torch.cuda.synchronize()

    def many(call: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                results = call()
            torch.cuda.current_stream().synchronize()
        return results

    with ThreadPoolExecutor(2) as pool:
        for got, right in zip(pool.map(many, calls), expected, strict=True):
            torch.testing.assert_close(got, right)
