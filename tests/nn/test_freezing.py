# SPDX-License-Identifier: MIT
"""`nn.freeze`: the same results, and no change that torch counts goes unnoticed."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap

from seq2seq_ext import nn as fast

KINDS = {
    "lstm": lambda: fast.LSTM(11, 24),
    "gru": lambda: fast.GRU(11, 24),
    "rnn": lambda: fast.RNN(11, 24),
    "two layers, two directions": lambda: fast.LSTM(11, 24, num_layers=2, bidirectional=True),
    "projection": lambda: fast.LSTM(11, 24, proj_size=9, bidirectional=True),
    "without bias": lambda: fast.GRU(11, 24, bias=False),
}


def fresh(layer, x):
    """What the weights as they are give: training keeps no packed copy."""
    return layer(x)[0].detach()


def kept(layer, x):
    with torch.inference_mode():
        return layer(x)[0]


@pytest.fixture
def x():
    return torch.randn(5, 2, 11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits(kind, dtype, x):
    layer, x = KINDS[kind]().to(dtype), x.to(dtype)
    assert not fast.is_frozen(layer)
    assert fast.freeze(layer) is layer
    expected = fresh(layer, x)
    for _ in range(3):
        assert torch.equal(kept(layer, x), expected)
    assert fast.is_frozen(layer)


def _optimize(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.randn(5, 2, 11))[0].sum().backward()
    optimizer.step()


def _load(layer):
    layer.load_state_dict({name: w + 1 for name, w in layer.state_dict().items()})


def _replace(layer):
    name = next(name for name, _ in layer.named_parameters())
    setattr(layer, name, torch.nn.Parameter(getattr(layer, name).detach() + 1))


def _add(place):
    def change(layer):
        with torch.no_grad():
            list(layer.parameters())[place].view(-1)[-1] += 3

    return change


CHANGES = {
    "optimizer": _optimize,
    "load_state_dict": _load,
    "replaced parameter": _replace,
    "one entry of w_ih": _add(0),
    "one entry of w_hh": _add(1),
    "to": lambda layer: layer.to(torch.float64).to(torch.float32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_counted_changes_end_it(change, x):
    layer = fast.freeze(fast.LSTM(11, 24))
    before = kept(layer, x)
    assert torch.equal(kept(layer, x), before)
    CHANGES[change](layer)
    assert not fast.is_frozen(layer)
    expected = fresh(layer, x)
    assert torch.equal(kept(layer, x), expected)
    assert torch.equal(expected, before) == (change == "to")
    # No longer frozen, every change counts again.
    next(layer.parameters()).data[3, 2] += 1
    assert torch.equal(kept(layer, x), fresh(layer, x))


def test_a_changed_projection_ends_it(x):
    layer = fast.freeze(fast.LSTM(11, 24, proj_size=9))
    before = kept(layer, x)
    with torch.no_grad():
        layer.weight_hr_l0[0, 0] += 3
    assert torch.equal(kept(layer, x), fresh(layer, x))
    assert not torch.equal(kept(layer, x), before)


@pytest.mark.skipif(not fast.freezing.HAVE_CPU, reason="the reference reads weights as they are")
def test_uncounted_changes_wait_for_the_next_freeze(x):
    """The promise is what saves the reading: if this fails, freezing does nothing."""
    layer = fast.freeze(fast.LSTM(11, 24))
    before = kept(layer, x)
    layer.weight_hh_l0.data[0, 0] += 3
    assert torch.equal(kept(layer, x), before)
    fast.freeze(layer)
    after = kept(layer, x)
    assert torch.equal(after, fresh(layer, x))
    assert not torch.equal(after, before)
    layer.weight_hh_l0.data[0, 0] += 3
    assert torch.equal(kept(layer, x), after)
    fast.unfreeze(layer)
    assert torch.equal(kept(layer, x), fresh(layer, x))
    assert not torch.equal(kept(layer, x), after)


@pytest.mark.skipif(not fast.freezing.HAVE_CPU, reason="the reference reads weights as they are")
def test_changes_between_freezing_and_the_first_call_count(x):
    layer = fast.LSTM(11, 24)
    kept(layer, x)  # a copy of what the weights were
    fast.freeze(layer)
    layer.weight_ih_l0.data[0, 0] += 3
    assert torch.equal(kept(layer, x), fresh(layer, x))


@pytest.mark.skipif(not fast.freezing.HAVE_CPU, reason="the reference reads weights as they are")
def test_shared_weights_stay_frozen_for_the_other(x):
    one, other = fast.GRU(11, 24), fast.GRU(11, 24)
    for name, weight in one.named_parameters():
        setattr(other, name, weight)
    fast.freeze(one)
    fast.freeze(other)
    before = kept(other, x)
    fast.unfreeze(one)
    one.weight_hh_l0.data[0, 0] += 3
    assert torch.equal(kept(other, x), before)
    fast.unfreeze(other)
    assert torch.equal(kept(other, x), fresh(other, x))


def test_memory_of_a_frozen_layer_that_is_gone_may_be_used_again():
    x = torch.randn(3, 1, 64)
    addresses = []
    for turn in range(8):
        layer = fast.LSTM(64, 64) if turn % 2 else fast.freeze(fast.LSTM(64, 64))
        addresses.append(layer.weight_hh_l0.data_ptr())
        with torch.no_grad():
            outputs = [layer(x)[0] for _ in range(3)]
        theirs = torch.nn.LSTM(64, 64)
        theirs.load_state_dict(layer.state_dict())
        for y in outputs:
            torch.testing.assert_close(y, theirs(x)[0].detach())
        del layer, theirs
        gc.collect()
    assert len(set(addresses)) < len(addresses), "no memory was used twice: this tested nothing"


def test_other_weights_in_their_place(x):
    """functional_call, also of wrapped tensors: neither taken for the frozen ones nor an end."""
    layer, other = fast.freeze(fast.LSTM(11, 24)), fast.LSTM(11, 24)
    before = kept(layer, x)
    given = dict(other.named_parameters())
    with torch.inference_mode():
        assert torch.equal(functional_call(layer, given, (x,))[0], other(x)[0])
    slopes = grad(lambda p: functional_call(layer, p, (x,))[0].sum())(given)
    other(x)[0].sum().backward()
    for name, weight in other.named_parameters():
        torch.testing.assert_close(slopes[name], weight.grad)
    two = {name: torch.stack([w, w]) for name, w in given.items()}
    assert vmap(lambda p: functional_call(layer, p, (x,))[0])(two).shape == (2, 5, 2, 24)
    assert fast.is_frozen(layer)
    assert torch.equal(kept(layer, x), before)


@pytest.mark.skipif(not fast.freezing.HAVE_CPU, reason="the reference reads weights as they are")
def test_it_ends_with_the_layer_in_any_mode(x):
    """Collected while torch is in a mode that catches ops: the memory is free all the same."""
    layer = fast.freeze(fast.LSTM(11, 24))
    weights = {name: w.detach() for name, w in layer.named_parameters()}  # keeps the memory here
    kept(layer, x)
    with FakeTensorMode():
        del layer
        gc.collect()
    again = fast.LSTM(11, 24)
    for name, weight in weights.items():
        setattr(again, name, torch.nn.Parameter(weight))
    kept(again, x)
    again.weight_hh_l0.data[0, 0] += 3
    assert torch.equal(kept(again, x), fresh(again, x))


def test_copies_are_not_frozen(x):
    layer = fast.freeze(fast.LSTM(11, 24))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not fast.is_frozen(twin)
        assert torch.equal(kept(twin, x), kept(layer, x))
    assert fast.is_frozen(layer)
    assert layer.state_dict().keys() == fast.LSTM(11, 24).state_dict().keys()


def test_a_whole_model_step_by_step():
    model = fast.Seq2Seq.build(
        20, 20, cell="lstm", embedding_size=8, hidden_size=16, attention="general"
    ).eval()
    layers = [m for m in model.modules() if isinstance(m, (fast.LSTM, fast.GRU, fast.RNN))]
    assert len(layers) == 2
    fast.freeze(model)
    assert all(fast.is_frozen(layer) for layer in layers)
    rnn = layers[1]
    rnn.steps_as_sequences = True
    x, hx = torch.randn(2, rnn.input_size), (torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))
    with torch.inference_mode():
        first = rnn.step(x, hx)[0]
    with torch.no_grad():
        rnn.weight_hh_l0 += 1
        rnn.weight_ih_l0 += 1
        expected = rnn(x[:, None], hx)[0][:, 0]
    with torch.inference_mode():
        assert torch.equal(rnn.step(x, hx)[0], expected)
    assert not torch.equal(first, expected)


def test_bad_input():
    with pytest.raises(TypeError, match=r"module: a torch\.nn\.Module, got dict"):
        fast.freeze({})
    with pytest.raises(ValueError, match="module: Linear has no LSTM, GRU or RNN"):
        fast.freeze(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="module: Linear has no LSTM"):
        fast.unfreeze(torch.nn.Linear(2, 2))
    with torch.inference_mode():
        layer = fast.LSTM(2, 3)
    with pytest.raises(ValueError, match="weights were made under torch"):
        fast.freeze(layer)
    assert not fast.is_frozen(layer)
