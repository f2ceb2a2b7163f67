# SPDX-License-Identifier: MIT
"""What happens to a module between calls: saved, copied, moved, changed, cast."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from seq2seq_ext import nn as snn
from tests.nn._helpers import ALL_PAIRS, LAYER_PAIRS, VARIANTS, tensors, twins


def example(cls, dtype=torch.float32):
    """A call's arguments that fit cls(5, 7)."""
    return (
        torch.randn(4, 5, dtype=dtype)
        if "Cell" in cls.__name__
        else torch.randn(6, 4, 5, dtype=dtype)
    )


@ALL_PAIRS
def test_state_dicts_load_strictly_both_ways(theirs, ours):
    a, b = theirs(5, 7), ours(5, 7)
    assert list(a.state_dict()) == list(b.state_dict())
    b.load_state_dict(a.state_dict(), strict=True)
    c = theirs(5, 7)
    c.load_state_dict(b.state_dict(), strict=True)
    x = example(ours)
    torch.testing.assert_close(c(x), a(x), rtol=0, atol=0)


@LAYER_PAIRS
def test_state_dict_names_of_all_variants(theirs, ours):
    for variant in (*VARIANTS, *([{"proj_size": 3, "bidirectional": True}] * (ours is snn.LSTM))):
        a, b = theirs(5, 7, **variant), ours(5, 7, **variant)
        assert {k: v.shape for k, v in a.state_dict().items()} == {
            k: v.shape for k, v in b.state_dict().items()
        }


@ALL_PAIRS
def test_repr_and_initialisation_are_torchs(theirs, ours):
    torch.manual_seed(3)
    a = theirs(5, 7)
    torch.manual_seed(3)
    b = ours(5, 7)
    assert repr(a) == repr(b)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


@ALL_PAIRS
def test_deepcopy_pickle_and_torch_save(theirs, ours):
    module = ours(5, 7)
    x = example(ours)
    want = tensors(module(x))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ):
        assert all(torch.equal(p, q) for p, q in zip(tensors(other(x)), want, strict=True))
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert all(torch.equal(p, q) for p, q in zip(tensors(module(x)), want, strict=True))


@ALL_PAIRS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_change_of_dtype(theirs, ours, dtype):
    module = ours(5, 7)
    converted = {
        torch.float64: module.double,
        torch.bfloat16: module.bfloat16,
        torch.float16: module.half,
    }[dtype]()
    outputs = tensors(converted(example(ours, dtype)))
    assert all(out.dtype == dtype and out.isfinite().all() for out in outputs)
    assert all(out.dtype == torch.float32 for out in tensors(converted.float()(example(ours))))
    made = ours(5, 7, device="cpu", dtype=dtype)
    assert all(p.dtype == dtype for p in made.parameters())


def test_meta_device():
    module = snn.LSTM(5, 7, 2, bidirectional=True, device="meta")
    assert all(p.is_meta for p in module.parameters())
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    assert module(torch.randn(6, 4, 5))[0].isfinite().all()


@LAYER_PAIRS
def test_a_changed_parameter_is_seen(theirs, ours):
    """By assignment, by functional_call, and under a parametrization."""
    module, x = ours(5, 7), torch.randn(6, 4, 5)
    before = module(x)[0]
    values = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    assert not torch.func.functional_call(module, values, (x,))[0].any()
    assert torch.equal(module(x)[0], before)
    module.weight_ih_l0 = nn.Parameter(torch.zeros_like(module.weight_ih_l0))
    assert not torch.equal(module(x)[0], before)
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    module(x)[0].sum().backward()
    assert module.parametrizations.weight_hh_l0.original1.grad.any()


@LAYER_PAIRS
def test_flatten_parameters_does_nothing(theirs, ours):
    module = ours(5, 7)
    pointers = [p.data_ptr() for p in module.parameters()]
    assert module.flatten_parameters() is None
    assert pointers == [p.data_ptr() for p in module.parameters()]


@ALL_PAIRS
def test_autocast(theirs, ours):
    """All return the autocast dtype, as torch.nn's do on CUDA; on the CPU its LSTM alone does."""
    a, b = twins(theirs, 5, 7)
    x = example(ours)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want, got = tensors(a(x)), tensors(b(x))
    assert got[0].dtype == torch.bfloat16
    if ours is snn.LSTM:
        assert [t.dtype for t in got] == [t.dtype for t in want]
    if ours is snn.LSTMCell:  # the cell state keeps its own
        assert got[1].dtype == torch.float32
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=2e-2, atol=2e-2)
