# SPDX-License-Identifier: MIT
import copy

import pytest
import torch
from torch import nn

from seq2seq_ext import nn as snn
from seq2seq_ext.convert import convert, revert
from tests.nn._helpers import CELLS, LAYERS, class_name, tensors


class Custom(nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.encoder = nn.LSTM(5, 4, num_layers=2, bidirectional=True, dropout=0.1)
        self.stack = nn.ModuleList([nn.GRUCell(8, 6), nn.RNNCell(6, 6, nonlinearity="relu")])
        self.shared = self.stack[0]
        self.custom = Custom(5, 3)
        self.output = nn.Linear(6, 11)

    def forward(self, tokens):
        x = self.embedding(tokens)
        y = self.encoder(x)[0][-1]
        return self.output(self.stack[1](self.shared(y))) + self.custom(x)[0].sum()


@pytest.mark.parametrize("training", [True, False])
def test_convert_and_revert(training):
    model = Model().train(training)
    torchs = [type(m) for m in model.modules()]
    parameters, names = list(model.parameters()), list(model.state_dict())
    tokens = torch.randint(11, (6, 3))
    want = model.eval()(tokens)
    model.train(training)

    report = convert(model)
    assert report.model is model
    assert [name for name, _ in report.converted] == ["encoder", "shared", "stack.0", "stack.1"]
    assert ("encoder", "torch.LSTM -> seq2seq_ext.LSTM") in report.converted
    assert [(name, kind) for name, kind, _ in report.skipped] == [("custom", "Custom")]
    assert "subclass" in report.skipped[0][2]
    assert "converted 4, skipped 1" in str(report)
    assert type(model.encoder) is snn.LSTM
    assert type(model.custom) is Custom
    assert model.shared is model.stack[0]
    assert all(module.training == training for module in model.modules())
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.eval()(tokens), want)

    report = revert(model)
    assert len(report.converted) == 4
    assert [type(m) for m in model.modules()] == torchs
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model(tokens), want)


def test_nothing_is_patched_globally():
    model, other = Model(), Model()
    convert(model)
    assert type(other.encoder) is nn.LSTM
    assert type(Model().encoder) is nn.LSTM


@pytest.mark.parametrize(("theirs", "ours"), LAYERS + CELLS, ids=class_name)
def test_the_model_may_be_a_recurrent_module_itself(theirs, ours):
    module = theirs(5, 7, dtype=torch.float64)
    report = convert(module)
    assert type(report.model) is ours
    assert type(module) is theirs
    assert report.converted[0][0] == ""
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(tensors(report.model(x)), tensors(module(x)))
    back = revert(report.model).model
    assert type(back) is theirs
    assert repr(back) == repr(module)
    torch.testing.assert_close(tensors(copy.deepcopy(report.model)(x)), tensors(module(x)))


def test_an_optimizer_made_before_keeps_working():
    model = nn.Sequential(nn.LSTM(5, 7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model)
    before = model[0].weight_hh_l0.detach().clone()
    model(torch.randn(6, 4, 5))[0].sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight_hh_l0, before)


def test_hooks_go_along():
    model = nn.Sequential(nn.GRU(5, 7))
    calls = []
    model[0].register_forward_hook(lambda module, args, out: calls.append(type(module)))
    convert(model)
    model(torch.randn(6, 4, 5))
    assert calls == [snn.GRU]


def test_filter():
    model = Model()
    report = convert(model, filter_fn=lambda module, name: name != "encoder")
    assert type(model.encoder) is nn.LSTM
    assert ("encoder", "LSTM", "filter_fn") in report.skipped
    assert len(report.converted) == 3


def test_what_is_not_a_module():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got dict"):
        convert({})
