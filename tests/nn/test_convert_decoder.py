# SPDX-License-Identifier: MIT
"""Decoders written with torch.nn, step by step, against what `convert_decoder` makes of them."""

import pytest
import torch
from torch import nn

from seq2seq_ext.convert import convert_decoder
from seq2seq_ext.nn import Encoder, Seq2Seq

V, E, H, C, A = 19, 6, 8, 10, 7
EOS = 2
CELLS = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell), "rnn": (nn.RNN, nn.RNNCell)}


class Plain(nn.Module):
    """What a user might have written: one step, from cells or from a module of all layers."""

    def __init__(self, cell, kind, *, layers=1, cells=True, feeding=False, tied=False, bias=True):
        super().__init__()
        self.kind, self.feeding, self.lstm = kind, feeding, cell == "lstm"
        self.embedding = nn.Embedding(V, H if tied else E, padding_idx=0)
        size = self.embedding.embedding_dim + (H if feeding else 0) + (C if kind == "every" else 0)
        whole, one = CELLS[cell]
        if cells:
            made = [one(size if i == 0 else H, H, bias=bias) for i in range(layers)]
            self.rnn = nn.ModuleList(made)
        else:
            self.rnn = whole(size, H, layers, bias=bias)
        self.output = nn.Linear(H, V)
        if tied:
            self.output.weight = self.embedding.weight
        self.key = self.query = self.v = self.combine = None
        if kind in ("general", "additive"):
            self.combine = nn.Linear(C + H, H, bias=False)
            self.key = nn.Linear(C, A if kind == "additive" else H, bias=kind == "additive")
        if kind == "additive":
            self.query, self.v = nn.Linear(H, A), nn.Linear(A, 1, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3)

    def step(self, tokens, state, feed, memory, c):
        x = self.embedding(tokens)
        if self.feeding:
            x = torch.cat([x, feed], 1)
        if self.kind == "every":
            x = torch.cat([x, c], 1)
        if isinstance(self.rnn, nn.ModuleList):
            new = []
            for cell, old in zip(self.rnn, state, strict=True):
                new.append(cell(x, old))
                x = new[-1][0] if self.lstm else new[-1]
            s = x
        else:
            hx = [torch.stack(part) for part in zip(*state, strict=True)] if self.lstm else None
            out, last = self.rnn(x[None], tuple(hx) if hx else torch.stack(state))
            s = out[0]
            new = list(zip(*last, strict=True)) if self.lstm else list(last)
        if self.combine is None:
            return s, new, s
        if self.kind == "general":
            scores = (self.key(memory) * s[:, None]).sum(-1)
        else:
            scores = self.v(torch.tanh(self.key(memory) + self.query(s)[:, None]))[..., 0]
        context = (scores.softmax(1)[..., None] * memory).sum(1)
        features = torch.tanh(self.combine(torch.cat([context, s], 1)))
        return features, new, features

    @torch.no_grad()
    def greedy(self, encoded, layers, steps):
        memory = encoded.outputs
        c = encoded.hidden[-1]
        state = [c.new_zeros(len(c), H) for _ in range(layers)]
        state = [(s, s) for s in state] if self.lstm else state
        feed, tokens, out = c.new_zeros(len(c), H), torch.ones(len(c), dtype=torch.int64), []
        done = torch.zeros(len(c), dtype=torch.bool)
        for _ in range(steps):
            features, state, feed = self.step(tokens, state, feed, memory, c)
            tokens = self.output(features).argmax(1).masked_fill(done, 0)
            done |= tokens == EOS
            out.append(tokens)
        return torch.stack(out, 1)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "general", "feeding": True},
        {"kind": "additive", "layers": 2, "cells": False},
        {"kind": "every", "layers": 2, "bias": False},
        {"kind": "every", "cells": False, "tied": True},
    ],
    ids=str,
)
def test_decodes_like_the_modules(cell, options):
    torch.manual_seed(5)
    encoder = Encoder(11, 5, C, cell="gru").double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(4)
    plain = Plain(cell, **options).double()
    attends = options["kind"] != "every"
    decoder = convert_decoder(
        encoder,
        embedding=plain.embedding,
        rnn=plain.rnn,
        output=plain.output,
        context="attention" if attends else "every_step",
        attention=options["kind"] if attends else None,
        key=plain.key,
        query=plain.query,
        v=plain.v,
        combine=plain.combine,
        input_feeding=options.get("feeding", False),
        bridge="zero",
    )
    model = Seq2Seq(encoder, decoder)
    src = torch.randint(1, 11, (9, 6))
    want = plain.greedy(encoder(src), options.get("layers", 1), 12)
    got = model.generate(src, bos_token_id=1, eos_token_id=EOS, pad_token_id=0, max_new_tokens=12)
    assert torch.equal(got, want[:, : got.size(1)])
    assert not want[:, got.size(1) :].any()
    assert len({tuple(row) for row in got.tolist()}) > 2  # not all alike
    assert decoder.embedding.weight.data_ptr() != plain.embedding.weight.data_ptr()


def test_an_lstm_with_projection():
    torch.manual_seed(5)
    encoder = Encoder(11, 5, C, cell="gru").double()
    embedding, output = nn.Embedding(V, E).double(), nn.Linear(5, V).double()
    lstm = nn.LSTM(E, H, 2, proj_size=5, bias=False).double()
    decoder = convert_decoder(
        encoder,
        embedding=embedding,
        rnn=lstm,
        output=output,
        context="initial_state",
        bridge="linear",
    )
    encoded, tgt_in = encoder(torch.randint(1, 11, (4, 6))), torch.randint(V, (4, 5))
    h, c = (torch.stack(state) for state in decoder.bridge(encoded))
    want = output(lstm(embedding(tgt_in.T), (h, c))[0]).transpose(0, 1)
    torch.testing.assert_close(decoder(tgt_in, encoded).logits, want)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"embedding": nn.Linear(2, 2)}, TypeError, "embedding must be a torch.nn.Embedding"),
        ({"output": nn.Linear(H + 1, V)}, ValueError, r"output.weight must have shape \(19, 8\)"),
        ({"rnn": nn.Linear(2, 2)}, TypeError, "rnn must be"),
        ({"rnn": nn.GRU(E, H, bidirectional=True)}, ValueError, "one direction"),
        ({"rnn": [nn.GRUCell(E, H), nn.LSTMCell(H, H)]}, TypeError, "rnn must be"),
        ({"rnn": nn.GRUCell(E + 1, H)}, ValueError, "rnn.weight_ih_l0 must have shape"),
        ({"key": None}, TypeError, "key must be a torch.nn.Linear, got NoneType"),
        ({"key": nn.Linear(C, H)}, ValueError, "key must have no bias"),
        ({"query": nn.Linear(H, H)}, ValueError, "query is not for attention 'general'"),
        ({"combine": nn.Linear(C, H, bias=False)}, ValueError, "combine must read 10 \\+ 8"),
        ({"context": "initial_state", "attention": None}, ValueError, "are for context"),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else next(iter(value)),
)
def test_what_does_not_fit(changes, error, message):
    plain = Plain("gru", "general")
    arguments = {
        "embedding": plain.embedding,
        "rnn": plain.rnn,
        "output": plain.output,
        "attention": "general",
        "key": plain.key,
        "combine": plain.combine,
        "bridge": "linear",
    }
    with pytest.raises(error, match=message):
        convert_decoder(Encoder(11, 5, C), **{**arguments, **changes})
