# SPDX-License-Identifier: MIT
"""linear_cross_entropy: against torch's linear and cross_entropy, and all that an op has to be."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq_ext import _cross_entropy, ops, reference
from tests.ops.cases import BACKENDS, KERNELS, ROOT, error, with_dtypes

SIZES = [(1, 1, 1), (7, 7, 7), (63, 65, 500), (65, 63, 1), (500, 7, 65), (7, 500, 63), (65, 1, 7)]
NAMES = ("loss", "d_hidden", "d_weight", "d_bias")


@dataclass
class Problem:
    """Numbers of the dtype under test, whatever dtype they are stored in."""

    hidden: Tensor  # (N, H)
    weight: Tensor  # (V, H)
    target: Tensor  # (N,)
    bias: Tensor | None
    class_weight: Tensor | None
    d_loss: Tensor  # () or (N,)
    options: dict[str, Any]

    def tensors(self, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Any]]:
        """Leaves (hidden, weight, [bias]), and the arguments that are none."""
        given = [t for t in (self.hidden, self.weight, self.bias) if t is not None]
        leaves = [t.detach().to(dtype).requires_grad_() for t in given]
        return leaves, {"class_weight": self.class_weight, **self.options}


def make(
    dtype: torch.dtype,
    N: int,
    H: int,
    V: int,
    *,
    bias: bool = True,
    weighted: bool = False,
    ignored: float = 0.2,
    **options: Any,
) -> Problem:
    state = reference.state_dtype(dtype)
    target = torch.randint(V, (N,))
    target[torch.rand(N) < ignored] = options.get("ignore_index", -100)
    # A few thousandths, as training has them, in 16 bits mostly zeros: gradients are scaled there.
    scale = N if dtype.itemsize == 2 and options.get("reduction", "mean") == "mean" else 1
    return Problem(
        torch.randn(N, H, dtype=torch.float64).to(dtype),
        (torch.randn(V, H, dtype=torch.float64) * 2 * H**-0.5).to(dtype),
        target,
        torch.randn(V, dtype=torch.float64).to(dtype) if bias else None,
        torch.rand(V).to(state) + 0.1 if weighted else None,
        torch.randn((N,) if options.get("reduction") == "none" else ()).to(state) * scale,
        options,
    )


def solve(module: ModuleType, p: Problem) -> list[Tensor]:
    """The loss and the gradients."""
    (hidden, weight, *bias), options = p.tensors(p.hidden.dtype)
    loss = module.linear_cross_entropy(hidden, weight, p.target, *bias, **options)
    return [loss, *torch.autograd.grad(loss, [hidden, weight, *bias], p.d_loss)]


def solve_torch(p: Problem, dtype: torch.dtype) -> list[Tensor]:
    """torch's own, in `dtype`; the mean over nothing is 0, as the op has it."""
    (hidden, weight, *bias), options = p.tensors(dtype)
    class_weight = options.pop("class_weight")
    if class_weight is not None:
        class_weight = class_weight.to(dtype)
    if (p.target == options.get("ignore_index", -100)).all():
        options["reduction"] = "none" if options.get("reduction") == "none" else "sum"
    logits = F.linear(hidden, weight, *bias)
    loss = F.cross_entropy(logits, p.target, weight=class_weight, **options)
    return [loss, *torch.autograd.grad(loss, [hidden, weight, *bias], p.d_loss.to(dtype))]


def check(module: ModuleType, problems: list[Problem]) -> None:
    """The rule of numerics (cases.py). The loss comes in the type of sums, so it is held against
    what torch makes of the same numbers in that type."""
    dtype = problems[0].hidden.dtype
    state = reference.state_dtype(dtype)
    found = [solve(module, p) for p in problems]
    exact = [solve_torch(p, torch.float64) for p in problems]
    theirs = [solve_torch(p, dtype) for p in problems]
    losses = [[solve_torch(p, state)[0]] for p in problems]
    for i, name in enumerate(NAMES[: len(found[0])]):
        kind = state if i == 0 else dtype
        right = [e[i].detach().cpu() for e in exact]
        ours = error([f[i].detach().cpu() for f in found], right, kind)
        peer = error([t[i].detach().cpu() for t in (theirs if i else losses)], right, kind)
        assert ours.within(peer, kind), (name, ours, peer)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(module, dtype, sizes):
    check(module, [make(dtype, *sizes, label_smoothing=0.1) for _ in range(2)])
    check(module, [make(dtype, *sizes) for _ in range(2)])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_options(module, dtype, reduction, label_smoothing, weighted):
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": 3}
    for ignored, bias in itertools.product((0.0, 0.4, 1.0), (False, True)):
        drawn = {"bias": bias, "weighted": weighted, "ignored": ignored}
        check(module, [make(dtype, 9, 5, 37, **drawn, **options) for _ in range(2)])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(["reference", "cpu"]))
def test_many_rows_and_words(module, dtype):
    check(module, [make(dtype, 700, 40, 3001, weighted=True, label_smoothing=0.1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weight_gradient_of_65536_rows(dtype):
    """Summed in float32, whatever the dtype."""
    check(ops, [make(dtype, 65536, 3, 5)])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
def test_repeats(module, dtype):
    p = make(dtype, 130, 33, 201, weighted=True, label_smoothing=0.1, reduction="none")
    first = solve(module, p)
    for _ in range(9):
        assert all(torch.equal(a, b) for a, b in zip(first, solve(module, p), strict=True))


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(["cpu"]))
@pytest.mark.parametrize("sizes", [(1, 300, 900), (300, 33, 901), (700, 200, 40)], ids=str)
def test_threads(module, dtype, sizes):
    p = make(dtype, *sizes, label_smoothing=0.1)
    first = solve(module, p)
    torch.set_num_threads(2)
    assert all(torch.equal(a, b) for a, b in zip(first, solve(module, p), strict=True))


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(["cpu"]))
@pytest.mark.parametrize("kept", [0, 384, 1152])
def test_kept_logits_change_no_bit(module, dtype, kept, monkeypatch):
    N = 300
    p = make(dtype, N, 33, 1201, weighted=True, label_smoothing=0.1)
    results = [solve(module, p)]  # all kept
    for bytes_kept in ((N + 1) * kept * reference.state_dtype(dtype).itemsize, 0):
        monkeypatch.setattr(_cross_entropy, "KEPT_BYTES", bytes_kept)
        results.append(solve(module, p))
    for a, b, c in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts(module):
    """Any strides, any leading dimensions."""
    base = torch.randn(4, 6, 10)
    target = torch.randint(9, (6, 8))[:, ::2]  # (6, 4), every other one
    weight, bias = torch.randn(5, 9).T, torch.randn(18)[::2]
    results = []
    for x, w, b, t in (
        (base[..., ::2].transpose(0, 1), weight, bias, target),
        (base[..., ::2].transpose(0, 1).contiguous(), weight.contiguous(), bias.clone(), target),
    ):
        leaves = [v.detach().requires_grad_() for v in (x, w, b)]
        loss = module.linear_cross_entropy(*leaves[:2], t, leaves[2], reduction="none")
        assert loss.shape == (6, 4)
        one = torch.ones(()).expand(6, 4)
        results.append([loss, *torch.autograd.grad(loss, leaves, one)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    vector = module.linear_cross_entropy(base[0, 0, :5], weight, target[0, 0], reduction="none")
    assert vector.shape == ()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_rows(module, reduction):
    hidden, weight = torch.randn(0, 3, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    target = torch.zeros(0, 3, dtype=torch.int64)
    loss = module.linear_cross_entropy(hidden, weight, target, reduction=reduction)
    assert loss.shape == ((0, 3) if reduction == "none" else ())
    assert not loss.any()
    d_hidden, d_weight = torch.autograd.grad(loss.sum(), (hidden, weight))
    assert d_hidden.shape == (0, 3, 5)
    assert not d_weight.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_class_weights_that_add_up_to_zero(module):
    p = make(torch.float32, 5, 4, 9, weighted=True, label_smoothing=0.1, ignored=0)
    p.class_weight[p.target] = 0
    assert all(not r.any() for r in solve(module, p))


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_may_hold_anything(module, backend):
    """On a GPU all but what d_weight is multiplied with, as with torch."""
    p = make(torch.float32, 9, 5, 40, ignored=0)
    p.target[[2, 7]] = -100
    clean = solve(module, p)
    p.hidden[2], p.hidden[7] = math.nan, math.inf
    for name, a, b in zip(NAMES, clean, solve(module, p), strict=True):
        assert torch.equal(a, b) or (name == "d_weight" and "cuda" in backend), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_without_a_distribution(module, bad):
    p = make(torch.float32, 9, 5, 40, ignored=0, reduction="none")
    p.hidden[4] = bad
    loss, d_hidden, *_ = solve(module, p)
    assert loss.isnan().tolist() == [n == 4 for n in range(9)]
    assert d_hidden.isnan().any(-1).tolist() == [n == 4 for n in range(9)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_some_gradients(module):
    p = make(torch.float32, 30, 6, 50)
    every = solve(module, p)[1:]
    given = [p.hidden, p.weight, p.bias]
    for wanted in itertools.product((False, True), repeat=3):
        leaves = [t.detach().requires_grad_(w) for t, w in zip(given, wanted, strict=True)]
        loss = module.linear_cross_entropy(*leaves[:2], p.target, leaves[2])
        assert loss.requires_grad == any(wanted)
        if not any(wanted):
            continue
        chosen = [t for t in leaves if t.requires_grad]
        found = torch.autograd.grad(loss, chosen, p.d_loss)
        expected = [g for g, w in zip(every, wanted, strict=True) if w]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("backend", ["reference", "cpu", "cuda_host"])
@pytest.mark.parametrize("wrong", [-1, 7, 2**40])
def test_target_out_of_range(module, wrong):
    hidden, weight = torch.randn(3, 5), torch.randn(7, 5)
    message = rf"target: expected 0 to 6, or ignore_index -100, got {wrong}"
    target = torch.tensor([0, wrong, -100])
    call = ops.linear_cross_entropy
    if module is reference:  # called in place of a missing library
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("seq2seq_ext._cross_entropy.has_kernel", lambda _: False)
            with pytest.raises(IndexError, match=message):
                call(hidden, weight, target)
    else:
        with pytest.raises(IndexError, match=message):
            call(hidden, weight, target)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("bias", [False, True], ids=["nobias", "bias"])
def test_derivatives(module, reduction, bias):
    p = make(torch.float64, 4, 3, 6, weighted=True, bias=bias, reduction=reduction)
    p.options["label_smoothing"] = 0.2
    leaves, options = p.tensors(torch.float64)

    def call(hidden: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
        return module.linear_cross_entropy(hidden, weight, p.target, *bias, **options)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


def test_transforms():
    """Inside torch.func the reference runs."""
    p = make(torch.float64, 4, 3, 6, ignored=0)
    (hidden, weight, bias), _ = p.tensors(torch.float64)

    def call(x: Tensor, y: Tensor) -> Tensor:
        return ops.linear_cross_entropy(x, weight, y, bias)

    each = torch.func.vmap(torch.func.grad(call))(hidden[:, None], p.target[:, None])
    whole = torch.autograd.grad(call(hidden, p.target), hidden)[0]
    torch.testing.assert_close(each[:, 0] / 4, whole)


def test_no_logits_in_memory():
    """The (N, V) logits would be 512 MiB."""
    code = """
import resource, torch
from seq2seq_ext import ops
hidden, weight = torch.randn(4096, 8, requires_grad=True), torch.randn(32768, 8, requires_grad=True)
target = torch.randint(32768, (4096,))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
ops.linear_cross_entropy(hidden[:64], weight, target[:64]).backward()
before = peak()
ops.linear_cross_entropy(hidden, weight, target).backward()
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 64


@pytest.mark.slow
def test_more_logits_than_2_31():
    N, V = 70_000, 32_000
    hidden, weight = torch.zeros(N, 1, requires_grad=True), torch.randn(V, 1, requires_grad=True)
    bias = torch.zeros(V, requires_grad=True)
    target = torch.full((N,), V - 1)
    loss = ops.linear_cross_entropy(hidden, weight, target, bias, reduction="none")
    torch.testing.assert_close(loss, torch.full((N,), math.log(V)))
    d_hidden, d_bias = torch.autograd.grad(loss.sum(), (hidden, bias))
    expected = torch.full((V,), N / V)
    expected[-1] -= N
    torch.testing.assert_close(d_bias, expected, rtol=1e-4, atol=1e-4)
    mean = weight.detach().double().mean() - weight.detach()[-1].double()
    torch.testing.assert_close(d_hidden, mean.float().expand(N, 1), rtol=1e-4, atol=1e-4)
