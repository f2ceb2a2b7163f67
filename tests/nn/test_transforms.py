# SPDX-License-Identifier: MIT
"""torch.func and forward-mode AD give torch.nn's derivatives: such calls run the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from seq2seq_ext import nn as snn
from seq2seq_ext import ops
from tests.nn._helpers import ALL_PAIRS, tensors, twins


def pair(theirs):
    """The two modules as functions of their input, and an input."""
    cell = theirs.__name__.endswith("Cell")
    a, b = twins(theirs, 5, 7, **({} if cell else {"num_layers": 2, "bidirectional": True}))
    x = torch.randn(4, 5) if cell else torch.randn(6, 4, 5)
    return [lambda x, m=m: tensors(m(x))[0] for m in (a.double(), b.double())], x.double()


@ALL_PAIRS
@pytest.mark.parametrize("frozen", [False, True])
def test_jvp(theirs, ours, frozen):
    functions, x = pair(theirs)
    tangent = torch.randn_like(x)
    with torch.set_grad_enabled(not frozen):
        want, got = (torch.func.jvp(f, (x,), (tangent,)) for f in functions)
    assert want[1].any()
    torch.testing.assert_close(got, want)


@ALL_PAIRS
@pytest.mark.parametrize("frozen", [False, True])
def test_forward_mode(theirs, ours, frozen):
    functions, x = pair(theirs)
    tangent = torch.randn_like(x)
    with torch.set_grad_enabled(not frozen), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        want, got = (forward_ad.unpack_dual(f(dual)).tangent for f in functions)
        torch.testing.assert_close(got, want)


@ALL_PAIRS
def test_grad_and_its_composition_with_vmap(theirs, ours):
    functions, x = pair(theirs)
    want, got = (torch.func.grad(lambda x, f=f: f(x).square().sum())(x) for f in functions)
    torch.testing.assert_close(got, want)
    many = torch.stack([x, 2 * x, -x])
    per_sample = torch.func.vmap(torch.func.grad(lambda x: functions[1](x).square().sum()))(many)
    torch.testing.assert_close(per_sample[0], want)


@ALL_PAIRS
def test_vmap(theirs, ours):
    """torch.nn's fused layers have no vmap of their own: ours against a loop."""
    functions, x = pair(theirs)
    many = torch.stack([x, 2 * x, -x])
    with torch.no_grad():
        got = torch.func.vmap(functions[1])(many)
        torch.testing.assert_close(got, torch.stack([functions[0](x) for x in many]))


def test_functional_grad_of_the_parameters():
    theirs, ours = twins(nn.LSTM, 5, 7)
    x = torch.randn(6, 4, 5)
    grads = [
        torch.func.grad(lambda p, m=m: torch.func.functional_call(m, p, (x,))[0].square().sum())(
            {name: value.detach() for name, value in m.named_parameters()}
        )
        for m in (theirs, ours)
    ]
    torch.testing.assert_close(grads[1], grads[0])


def test_lengths():
    module = snn.GRU(5, 7)
    x, lengths = torch.randn(3, 6, 4, 5), torch.tensor([[6, 2, 0, 1], [3, 3, 3, 3], [1, 6, 6, 0]])
    with torch.no_grad():
        got = torch.func.vmap(
            lambda x, n: ops.gru_sequence(
                x, torch.zeros(1, 4, 7), module.layer_weights(0), lengths=n
            )[0]
        )(x, lengths)
        want = torch.stack([module(*a[:1], lengths=a[1])[0] for a in zip(x, lengths, strict=True)])
    torch.testing.assert_close(got, want)
    tangent = torch.randn(6, 4, 5)
    _, moved = torch.func.jvp(lambda x: module(x, lengths=lengths[0])[0], (x[0],), (tangent,))
    step = 1e-3
    ends = [module(x[0] + s * tangent, lengths=lengths[0])[0] for s in (step, -step)]
    torch.testing.assert_close(moved, (ends[0] - ends[1]) / (2 * step), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_attention(frozen):
    query, keys = torch.randn(2, 4).double(), torch.randn(2, 3, 4).double()
    tangent = torch.randn_like(query)

    def plain(query):
        return torch.softmax(torch.einsum("ba,bsa->bs", query, keys), 1)

    def ours(query):
        return ops.attention_step(query, keys, keys)[1]

    with torch.set_grad_enabled(not frozen):
        want, got = (torch.func.jvp(f, (query,), (tangent,))[1] for f in (plain, ours))
    torch.testing.assert_close(got, want)


TRANSFORMS = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).square().sum())(x),
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, -x])),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_compiled(transform):
    """torch.compile sees the transform too, and does not if there is none."""
    torch._dynamo.reset()
    module, x = snn.GRU(5, 7), torch.randn(6, 4, 5)

    def call(x):
        return module(x)[0]

    want = transform(call, x)
    got = torch.compile(lambda x: transform(call, x), fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, want)
    graphs = []
    torch.compile(call, fullgraph=True, backend=lambda g, _: graphs.append(g) or g.forward)(x)
    targets = [str(node.target) for node in graphs[0].graph.nodes]
    assert "seq2seq_ext.gru_sequence.default" in targets
    torch._dynamo.reset()
