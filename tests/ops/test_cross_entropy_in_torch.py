# SPDX-License-Identifier: MIT
"""linear_cross_entropy: errors, opcheck, torch.compile, meta tensors, inference mode, autocast."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from seq2seq_ext import ops, reference
from tests.ops.cases import KERNELS, device_of

f64, bf16, f16, i64 = torch.float64, torch.bfloat16, torch.float16, torch.int64


def t(*shape, dtype=torch.float32):
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.zeros(shape, dtype=dtype)


def good():
    return {
        "hidden": t(2, 3, 4),
        "weight": t(7, 4),
        "target": t(2, 3, dtype=i64),
        "bias": t(7),
        "class_weight": t(7).abs(),
    }


TABLE = [
    ("hidden", t(), "hidden: expected 1 or more dimensions (..., H), got shape ()"),
    ("hidden", t(2, 3, 0), "hidden: expected H >= 1, got shape (2, 3, 0)"),
    (
        "hidden",
        t(2, 3, 4, dtype=i64),
        "hidden: expected dtype float32, float64, bfloat16 or float16, got int64",
    ),
    ("weight", t(7, 4, dtype=f64), "weight: expected hidden's dtype float32, got float64"),
    ("weight", t(7), "weight: expected 2 dimensions (V, H), got shape (7,)"),
    ("weight", t(7, 5), "weight: expected shape (7, 4), got shape (7, 5)"),
    ("weight", t(0, 4), "weight: expected V >= 1, got shape (0, 4)"),
    ("target", t(2, 3), "target: expected dtype int64, got float32"),
    ("target", t(3, 2, dtype=i64), "target: expected shape (2, 3), got shape (3, 2)"),
    ("target", t(6, dtype=i64), "target: expected shape (2, 3), got shape (6,)"),
    ("bias", t(6), "bias: expected shape (7,), got shape (6,)"),
    ("bias", t(7, dtype=bf16), "bias: expected hidden's dtype float32, got bfloat16"),
    ("class_weight", t(7, 1), "class_weight: expected shape (7,), got shape (7, 1)"),
    (
        "class_weight",
        t(7, dtype=f64),
        "class_weight: expected hidden's dtype float32, got float64",
    ),
    (
        "class_weight",
        t(7).requires_grad_(),
        "class_weight: expected no gradient to be needed, got requires_grad=True",
    ),
    ("label_smoothing", 1.5, "label_smoothing: expected 0 to 1, got 1.5"),
    ("label_smoothing", -0.1, "label_smoothing: expected 0 to 1, got -0.1"),
    ("reduction", "avg", "reduction: expected 'mean', 'sum' or 'none', got 'avg'"),
]


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    TABLE,
    ids=lambda v: None if isinstance(v, torch.Tensor) else str(v)[:24],
)
def test_errors(module, backend, name, value, message):
    on = device_of(backend)
    arguments = {n: v.to(on) for n, v in good().items()}
    module.linear_cross_entropy(**arguments)
    if isinstance(value, torch.Tensor):
        value = value.detach().to(on).requires_grad_(value.requires_grad)
    with pytest.raises(ValueError, match=re.escape(message)):
        module.linear_cross_entropy(**{**arguments, name: value})


def test_errors_of_the_op_itself():
    """What comes past `ops`: the C++ checks."""
    op = torch.ops.seq2seq_ext.linear_cross_entropy
    hidden, weight, target = t(3, 4), t(7, 4), t(3, dtype=i64)
    rest = (None, None, -100, 0.0, "mean", 0)
    for arguments, message in (
        ((t(3), weight, target, *rest), "hidden: expected 2 dimensions (B, H), got shape (3,)"),
        ((hidden, t(7, 5), target, *rest), "weight: expected shape (7, 4), got shape (7, 5)"),
        ((hidden, weight, t(3), *rest), "target: expected dtype int64, got float32"),
        ((hidden, weight, target[:2], *rest), "target: expected shape (3,), got shape (2,)"),
        ((hidden, weight, target, t(6), *rest[1:]), "bias: expected shape (7,), got shape (6,)"),
        (
            (hidden, weight, target, None, t(7, dtype=f64), *rest[2:]),
            "class_weight: expected hidden's dtype float32, got float64",
        ),
        (
            (hidden, weight, target, None, None, -100, 2.0, "mean", 0),
            "label_smoothing: expected 0 to 1, got 2",
        ),
        (
            (hidden, weight, target, None, None, -100, 0.0, "avg", 0),
            "reduction: expected 'mean', 'sum' or 'none', got 'avg'",
        ),
        (
            (hidden, weight, target, *rest[:-1], 3),
            "kept: expected V = 7 or a smaller multiple of 384, got 3",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            op(*arguments)
    backward = torch.ops.seq2seq_ext.linear_cross_entropy_backward
    with pytest.raises(ValueError, match=re.escape("d_loss: expected shape (), got shape (2,)")):
        backward(t(2), hidden, weight, target, None, None, t(3), t(2), t(3, 0), *rest[2:])
    with pytest.raises(ValueError, match=re.escape("lse: expected shape (3,), got shape (2,)")):
        backward(t(), hidden, weight, target, None, None, t(2), t(2), t(3, 0), *rest[2:])
    with pytest.raises(
        ValueError, match=re.escape("logits: expected shape (3, 7), got shape (2, 7)")
    ):
        backward(t(), hidden, weight, target, None, None, t(3), t(2), t(2, 7), *rest[2:])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("hidden", [1.0], "a tensor"),
        ("target", 3, "a tensor"),
        ("bias", 0, "a tensor or None"),
        ("class_weight", [1.0], "a tensor or None"),
        ("ignore_index", "pad", "an int"),
        ("label_smoothing", "much", "a number"),
    ],
)
def test_wrong_types(name, value, expected):
    message = f"{name}: expected {expected}, got {type(value).__name__}"
    with pytest.raises(TypeError, match=message):
        ops.linear_cross_entropy(**{**good(), name: value})


@pytest.mark.parametrize("requires_grad", [False, True], ids=["values", "gradients"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "extras"])
@pytest.mark.parametrize("kept", [0, 7])
def test_opcheck(requires_grad, reduction, extras, kept):
    hidden, weight = t(5, 4).requires_grad_(requires_grad), t(7, 4).requires_grad_(requires_grad)
    target = torch.tensor([0, 6, -100, 3, 3])
    bias = t(7).requires_grad_(requires_grad) if extras else None
    class_weight = t(7).abs() if extras else None
    options = (-100, 0.1 if extras else 0.0, reduction)
    args = (hidden, weight, target, bias, class_weight, *options)
    torch.library.opcheck(torch.ops.seq2seq_ext.linear_cross_entropy.default, (*args, kept))
    if requires_grad:
        return
    loss, *saved = torch.ops.seq2seq_ext.linear_cross_entropy(*args, kept)
    backward = torch.ops.seq2seq_ext.linear_cross_entropy_backward.default
    for wanted in (0b111, 0b001, 0b110):
        args = (torch.randn_like(loss), hidden, weight, target, bias, class_weight, *saved)
        torch.library.opcheck(backward, (*args, *options, wanted))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compile(reduction):
    """One graph for every number of rows, forward and backward, same numbers as eager."""
    weight, bias = t(13, 4).requires_grad_(), t(13).requires_grad_()

    def call(hidden, target):
        options = {"label_smoothing": 0.1, "reduction": reduction, "ignore_index": 0}
        return ops.linear_cross_entropy(hidden * 2, weight, target, bias, **options)

    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
        for B, T in ((2, 3), (5, 4), (7, 2)):
            hidden, target = t(B, T, 4).requires_grad_(), torch.randint(13, (B, T))
            results = []
            for function in (call, compiled):
                loss = function(hidden, target)
                grads = torch.autograd.grad(loss.sum(), (hidden, weight, bias))
                results.append((loss, *grads))
            for eager, traced in zip(*results, strict=True):
                assert torch.equal(eager, traced)
    torch._dynamo.reset()


def test_meta_and_inference_mode():
    arguments = good()
    real = ops.linear_cross_entropy(**arguments, reduction="none")
    meta = {n: v.to("meta") for n, v in arguments.items()}
    fake = ops.linear_cross_entropy(**meta, reduction="none")
    assert fake.is_meta
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
    with torch.inference_mode():
        result = ops.linear_cross_entropy(**arguments, reduction="none")
    assert result.is_inference()
    assert torch.equal(result, real)


def test_autocast():
    """Computed in bfloat16, the loss in float32, gradients arrive in float32; float64 stays."""
    hidden, weight, bias = (v.requires_grad_() for v in (t(5, 4), t(7, 4), t(7)))
    class_weight, target = t(7).abs(), torch.randint(7, (5,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ops.linear_cross_entropy(hidden, weight, target, bias, class_weight=class_weight)
        double = ops.linear_cross_entropy(hidden.double(), weight.double(), target)
        mixed = ops.linear_cross_entropy(hidden.bfloat16(), weight, target, bias)
    assert loss.dtype == mixed.dtype == torch.float32
    assert double.dtype == torch.float64
    low = [v.bfloat16() for v in (hidden, weight, bias)]
    expected = ops.linear_cross_entropy(*low[:2], target, low[2], class_weight=class_weight)
    assert torch.equal(loss, expected)
    loss.backward()
    assert all(v.grad is not None and v.grad.dtype == torch.float32 for v in (hidden, weight, bias))
    with pytest.raises(ValueError, match="weight: expected hidden's dtype bfloat16, got float32"):
        ops.linear_cross_entropy(hidden.bfloat16(), weight, target)


def test_float16():
    """The CPU computes float16 in float32."""
    low = [v.half() for v in (t(5, 4), t(7, 4), t(7))]
    hidden, weight, bias = (v.clone().requires_grad_() for v in low)
    target, class_weight = torch.randint(7, (5,)), t(7).abs().half()
    loss = ops.linear_cross_entropy(hidden, weight, target, bias, class_weight=class_weight)
    wide = [v.float() for v in low]
    expected = F.cross_entropy(
        F.linear(wide[0], wide[1], wide[2]), target, weight=class_weight.float()
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert hidden.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float16
    with pytest.raises(ValueError, match="bias: expected hidden's dtype float16, got float32"):
        ops.linear_cross_entropy(hidden, weight, target, bias.float())


def test_reference_has_the_same_meaning():
    arguments = good() | {"reduction": "none", "label_smoothing": 0.3}
    torch.testing.assert_close(
        ops.linear_cross_entropy(**arguments), reference.linear_cross_entropy(**arguments)
    )
