# SPDX-License-Identifier: MIT
"""LSTM, GRU, RNN and the cells in every way torch.nn's are used."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from seq2seq_ext import nn as snn
from tests.nn._helpers import CELL_PAIRS, LAYER_PAIRS, VARIANTS, run, tensors, twins


def states(module, batch, **options):
    """Random initial states for a layer module, in its own form."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(rows, batch, module.proj_size or module.hidden_size, **options)
    if module.mode != "LSTM":
        return h
    return h, torch.randn(rows, batch, module.hidden_size, **options)


@LAYER_PAIRS
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("with_states", [False, True])
def test_outputs_and_gradients(theirs, ours, variant, with_states):
    a, b = twins(theirs, 5, 7, **variant)
    x = torch.randn(6, 4, 5, requires_grad=True)
    batch = 6 if a.batch_first else 4
    hx = states(a, batch, requires_grad=True) if with_states else None
    wrt = [x, *(tensors(hx) if with_states else [])]
    want, got = run(a, x, hx, wrt=wrt), run(b, x, hx, wrt=wrt)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_lstm_with_projection(variant):
    a, b = twins(nn.LSTM, 5, 7, proj_size=3, **variant)
    x = torch.randn(6, 4, 5, requires_grad=True)
    hx = states(a, 6 if a.batch_first else 4, requires_grad=True)
    want, got = run(a, x, hx, wrt=[x, *hx]), run(b, x, hx, wrt=[x, *hx])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_rnn_relu_by_keyword_and_by_position():
    x = torch.randn(6, 4, 5)
    a, b = twins(nn.RNN, 5, 7, nonlinearity="relu")
    torch.testing.assert_close(b(x), a(x))
    a, b = twins(nn.RNN, 5, 7, 2, "relu", False, True)
    torch.testing.assert_close(b(x), a(x))
    assert not b.bias
    assert b.batch_first
    assert b.nonlinearity == "relu"
    with pytest.raises(ValueError, match="Unknown nonlinearity 'selu'"):
        snn.RNN(5, 7, nonlinearity="selu")


@LAYER_PAIRS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(theirs, ours, bidirectional, batch_first):
    a, b = twins(theirs, 5, 7, num_layers=2, bidirectional=bidirectional, batch_first=batch_first)
    x = torch.randn(6, 5)
    hx = states(a, 1)
    hx = hx[:, 0] if isinstance(hx, torch.Tensor) else tuple(s[:, 0] for s in hx)
    torch.testing.assert_close(b(x, hx), a(x, hx))
    torch.testing.assert_close(b(x), a(x))
    assert tensors(b(x))[0].shape == (6, 14 if bidirectional else 7)


# -- packed sequences and lengths ------------------------------------------------------------------


@LAYER_PAIRS
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed(theirs, ours, bidirectional, enforce_sorted, batch_first):
    a, b = twins(theirs, 5, 7, num_layers=2, bidirectional=bidirectional, batch_first=batch_first)
    lengths = [6, 6, 4, 1] if enforce_sorted else [4, 6, 1, 6]
    data = torch.randn(6, 4, 5)
    packed = pack_padded_sequence(data, torch.tensor(lengths), enforce_sorted=enforce_sorted)
    hx = states(a, 4, requires_grad=True)
    packed.data.requires_grad_()
    wrt = [packed.data, *tensors(hx)]
    want, got = run(a, packed, hx, wrt=wrt), run(b, packed, hx, wrt=wrt)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    output = b(packed)[0]
    assert isinstance(output, PackedSequence)
    assert torch.equal(output.batch_sizes, packed.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        one, other = getattr(output, name), getattr(packed, name)
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    torch.testing.assert_close(tensors(b(packed)), tensors(a(packed)))


@LAYER_PAIRS
def test_packed_list_of_sequences(theirs, ours):
    a, b = twins(theirs, 5, 7, bidirectional=True)
    packed = pack_sequence([torch.randn(n, 5) for n in (2, 5, 3)], enforce_sorted=False)
    torch.testing.assert_close(tensors(b(packed)), tensors(a(packed)))


@LAYER_PAIRS
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_packing_without_packing(theirs, ours, batch_first):
    a, b = twins(theirs, 5, 7, num_layers=2, bidirectional=True, batch_first=batch_first)
    lengths = [3, 6, 1, 5]
    x = torch.randn(4, 6, 5) if batch_first else torch.randn(6, 4, 5)
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
    want, want_state = a(packed)
    want, _ = nn.utils.rnn.pad_packed_sequence(want, batch_first)
    for form in (lengths, torch.tensor(lengths), torch.tensor(lengths, dtype=torch.int32)):
        got, got_state = b(x, lengths=form)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_state, want_state)


def test_length_zero_keeps_the_state():
    module = snn.GRU(5, 7)
    h0 = torch.randn(1, 2, 7)
    y, h_n = module(torch.randn(4, 2, 5), h0, lengths=[0, 4])
    assert torch.equal(h_n[:, 0], h0[:, 0])
    assert not y[:, 0].any()
    assert y[:, 1].all()


@LAYER_PAIRS
def test_batch_first_gives_the_op_a_view(theirs, ours, monkeypatch):
    """No copy of the input is made: the ops take strides."""
    seen = []
    name = f"{ours.__name__.lower()}_sequence"
    import seq2seq_ext.nn.rnn as module_under_test

    real = getattr(module_under_test.ops, name)
    monkeypatch.setattr(
        module_under_test.ops, name, lambda x, *a, **k: (seen.append(x), real(x, *a, **k))[1]
    )
    x = torch.randn(4, 6, 5)
    ours(5, 7, batch_first=True, bidirectional=True)(x)
    assert len(seen) == 1
    assert seen[0].data_ptr() == x.data_ptr()
    assert seen[0].shape == (6, 4, 5)
    assert seen[0].stride() == (5, 30, 1)


# -- dropout ---------------------------------------------------------------------------------------


@LAYER_PAIRS
def test_dropout_between_layers_in_training_only(theirs, ours):
    module = ours(5, 64, num_layers=2, dropout=0.5)
    x = torch.randn(6, 4, 5)
    assert torch.equal(module.eval()(x)[0], module(x)[0])
    module.train()
    assert not torch.equal(module(x)[0], module(x)[0])
    all_dropped = ours(5, 8, num_layers=2, dropout=1.0)
    one, other = all_dropped(x)[0], all_dropped(torch.randn(6, 4, 5))[0]
    assert torch.equal(one, other)  # nothing of the input passes layer 1, and the output is kept
    assert one.any()


@LAYER_PAIRS
def test_dropout_with_one_layer_warns_as_torch_does(theirs, ours):
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        ours(5, 7, dropout=0.5)


# -- cells -----------------------------------------------------------------------------------------


@CELL_PAIRS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("with_states", [True, False])
def test_cells(theirs, ours, bias, batched, with_states):
    a, b = twins(theirs, 5, 7, bias)
    rows = (4,) if batched else ()
    x = torch.randn(*rows, 5, requires_grad=True)
    hx = None
    if with_states:
        hx = torch.randn(*rows, 7, requires_grad=True)
        if ours is snn.LSTMCell:
            hx = (hx, torch.randn(*rows, 7, requires_grad=True))
    wrt = [x, *(tensors(hx) if with_states else [])]
    want, got = run(a, x, hx, wrt=wrt), run(b, x, hx, wrt=wrt)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():  # the step kernel
        torch.testing.assert_close(tensors(b(x, hx)), want[0], rtol=1e-5, atol=1e-5)


def test_rnn_cell_relu():
    a, b = twins(nn.RNNCell, 5, 7, nonlinearity="relu")
    x, h = torch.randn(4, 5), torch.randn(4, 7)
    torch.testing.assert_close(b(x, h), a(x, h))


@LAYER_PAIRS
def test_step_is_the_sequence_taken_apart(theirs, ours):
    module = ours(5, 7, num_layers=2)
    x = torch.randn(6, 4, 5)
    hx = states(module, 4)
    want, want_state = module(x, hx)
    outputs = []
    with torch.inference_mode():
        for xt in x:
            y, hx = module.step(xt, hx)
            outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs), want)
    for got, wanted in zip(
        [hx] if isinstance(want_state, torch.Tensor) else hx, tensors(want_state), strict=True
    ):
        torch.testing.assert_close(torch.stack(got), wanted)
    with pytest.raises(ValueError, match="step: hx must hold 2 layers"):
        module.step(x[0], states(ours(5, 7), 4))
    with pytest.raises(ValueError, match="bidirectional"):
        ours(5, 7, bidirectional=True).step(x[0], hx)


# -- errors beyond the database --------------------------------------------------------------------

X = torch.zeros(6, 4, 5)
PACKED = pack_padded_sequence(X, [6] * 4)
BAD_CALLS = [
    ("4-D", (torch.zeros(1, 6, 4, 5),), {}, ValueError, "Expected input to be 2D or 3D, got 4D"),
    ("width", (torch.zeros(6, 4, 6),), {}, RuntimeError, "Expected 5, got 6"),
    ("hx batch", (X, torch.zeros(1, 3, 7)), {}, RuntimeError, "Expected hidden size"),
    ("hx layers", (X, torch.zeros(2, 4, 7)), {}, RuntimeError, "Expected hidden size"),
    ("hx 2-D", (X, torch.zeros(4, 7)), {}, RuntimeError, "hx should also be 3-D"),
    ("hx 3-D", (X[:, 0], torch.zeros(1, 1, 7)), {}, RuntimeError, "hx should also be 2-D"),
    ("hx type", (X, [1]), {}, TypeError, "hx must be a tensor h_0, got list"),
    ("empty", (torch.zeros(0, 4, 5),), {}, (ValueError, RuntimeError), "T|length"),
    ("lengths shape", (X,), {"lengths": [1, 2]}, ValueError, r"lengths must have shape \(4,\)"),
    ("lengths type", (X,), {"lengths": 3}, TypeError, "lengths must be a tensor or a sequence"),
    ("lengths dtype", (X,), {"lengths": torch.ones(4)}, TypeError, "lengths must be int64"),
    ("lengths large", (X,), {"lengths": [7, 1, 1, 1]}, ValueError, r"lengths.*7"),
    ("lengths negative", (X,), {"lengths": [6, -1, 1, 1]}, ValueError, r"lengths.*-1"),
    ("lengths packed", (PACKED,), {"lengths": [6] * 4}, ValueError, "lengths must be None"),
    ("lengths unbatched", (X[:, 0],), {"lengths": [6]}, ValueError, "lengths must be None"),
]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"), [c[1:] for c in BAD_CALLS], ids=[c[0] for c in BAD_CALLS]
)
def test_bad_calls(args, kwargs, error, words):
    with pytest.raises(error, match=words):
        snn.GRU(5, 7)(*args, **kwargs)


def test_lstm_state_errors_name_the_part():
    module, h, c = snn.LSTM(5, 7, proj_size=3), torch.zeros(1, 4, 3), torch.zeros(1, 4, 7)
    module(X, (h, c))
    with pytest.raises(TypeError, match="hx must be a pair"):
        module(X, h)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 4, 3\)"):
        module(X, (c, c))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size \(1, 4, 7\)"):
        module(X, (h, h))
    with pytest.raises(RuntimeError, match="3-D but got"):
        module(X, (h[0], c[0]))
    with pytest.raises(ValueError, match="only supported for LSTM"):
        snn.GRU(5, 7, proj_size=3)


def test_empty_batch():
    y, (h, c) = snn.LSTM(5, 7, num_layers=2, bidirectional=True)(torch.zeros(6, 0, 5))
    assert y.shape == (6, 0, 14)
    assert h.shape == c.shape == (4, 0, 7)


def test_no_warning_on_the_plain_path():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="seq2seq_ext runs its slow PyTorch reference")
        snn.LSTM(5, 7, 2)(X)
