# SPDX-License-Identifier: MIT
"""The parity rule: against a float64 oracle, at most 1.5 times torch.nn's error in that dtype."""

import pytest
import torch
from torch import nn

from tests.nn._helpers import CELLS, LAYERS, class_name, run, tensors, twins

# At these sizes a tensor holds few roundings, and the ratio of two handfuls is luck: hence a floor,
# in units of eps times the largest value: some roundings of float32, less than one of bfloat16. The
# mean's falls as chance does, with the root of the number of elements.
FACTOR = 1.5
FLOORS = {torch.float32: 4.0, torch.bfloat16: 0.75}

# The largest error of a few hundred numbers is itself random: it is averaged over some draws.
DRAWS = 4


def errors(results, oracle, dtype):
    """Maximum and mean error of each tensor, (N, 2), in units of eps times its largest value."""
    rows = []
    for result, exact in zip(results, oracle, strict=True):
        assert result.dtype == dtype
        assert result.isfinite().all()
        unit = torch.finfo(dtype).eps * float(exact.abs().max())
        error = (result.double() - exact).abs() / unit
        rows.append([error.max(), error.mean()])
    return torch.tensor(rows)


def compare(torchs, dtype, args, *shapes, call, **options):
    """`call(module, *inputs)` by our module, torch's, and torch's in float64 on the same input."""
    ours_total = theirs_total = 0
    for _ in range(DRAWS):
        theirs, ours = twins(torchs, *args, dtype=dtype, **options)
        oracle = torchs(*args, dtype=torch.float64, **options)
        oracle.load_state_dict({k: v.double() for k, v in theirs.state_dict().items()})
        inputs = [torch.randn(shape).to(dtype) for shape in shapes]
        results = []
        for module, kind in ((ours, dtype), (theirs, dtype), (oracle, torch.float64)):
            own = [x.to(kind).requires_grad_() for x in inputs]
            outputs, grads = run(call(module), *own, wrt=[*module.parameters(), *own])
            results.append(outputs + grads)
        ours_total = ours_total + errors(results[0], results[2], dtype) / DRAWS
        theirs_total = theirs_total + errors(results[1], results[2], dtype) / DRAWS
    names = [f"output {i}" for i in range(len(outputs))]
    names += [name for name, _ in ours.named_parameters()]
    names += [f"input {i}" for i in range(len(shapes))]
    counts = [t.numel() * DRAWS for t in results[0]]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        floors = FLOORS[dtype], FLOORS[dtype] * count**-0.5
        for j, measure in enumerate(("max", "mean")):
            got, limit = ours_total[i, j], FACTOR * theirs_total[i, j] + floors[j]
            assert got <= limit, f"{name}: {measure} error {got} > {limit}"


class Call(nn.Module):
    """A module called with its states as separate arguments."""

    def __init__(self, module, num_states):
        super().__init__()
        # In a list: its parameters are asked for by the caller, once.
        self.inner, self.num_states = [module], num_states

    def forward(self, x, *states):
        return tensors(self.inner[0](x, states if self.num_states == 2 else states[0]))


SHAPES = [
    (9, 3, 5, 7, {}),
    (33, 4, 65, 63, {}),
    (12, 2, 7, 33, {"num_layers": 2, "bidirectional": True}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
def test_layers(theirs, ours, shape, dtype):
    steps, batch, features, hidden, options = shape
    count = 2 if theirs is nn.LSTM else 1
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    inputs = [(steps, batch, features)] + [(rows, batch, hidden)] * count
    compare(theirs, dtype, (features, hidden), *inputs, call=lambda m: Call(m, count), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("theirs", "ours"), CELLS, ids=class_name)
def test_cells(theirs, ours, dtype):
    count = 2 if theirs is nn.LSTMCell else 1
    inputs = [(5, 65)] + [(5, 63)] * count
    compare(theirs, dtype, (65, 63), *inputs, call=lambda m: Call(m, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("theirs", "ours"), LAYERS, ids=class_name)
def test_long_sequence(theirs, ours, dtype):
    """T = 512: the error must not grow faster than torch's."""
    count = 2 if theirs is nn.LSTM else 1
    inputs = [(512, 2, 8)] + [(1, 2, 16)] * count
    compare(theirs, dtype, (8, 16), *inputs, call=lambda m: Call(m, count))
