# SPDX-License-Identifier: MIT
"""opcheck, torch.compile, torch.export, meta tensors, inference mode, autocast."""

from __future__ import annotations

import pytest
import torch

from seq2seq_ext import ops
from tests.ops.cases import CELLS, KERNELS, Case, device_of, make


def sequence_arguments(backend, cell, requires_grad, **options):
    problem = make(Case(cell, T=3, B=2, I=5, H=4, **options)).to(device_of(backend))

    def leaf(t):
        return t.clone().requires_grad_(requires_grad)

    states = [leaf(s) for s in problem.states]
    weights = [leaf(w) for w in problem.weights]
    relu = [cell == "relu"] if cell in ("tanh", "relu") else []
    reverse = problem.case.reverse
    return [leaf(problem.x), *states, weights, problem.lengths, *relu, reverse]


def name_of(cell):
    return "rnn" if cell in ("tanh", "relu") else cell


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["values", "gradients"])
@pytest.mark.parametrize("options", [{}, {"directions": 2, "lengths": "zeros"}], ids=str)
def test_opcheck_sequence(module, backend, cell, requires_grad, options):
    args = sequence_arguments(backend, cell, requires_grad, **options)
    op = getattr(module.kernels, f"{name_of(cell)}_sequence")
    torch.library.opcheck(op, (*args, True))
    if not requires_grad:
        torch.library.opcheck(op, (*args, False))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("wanted", [0b111111, 0b000001])
def test_opcheck_backward(module, backend, cell, wanted):
    args = sequence_arguments(backend, cell, False, lengths="ragged")
    name = name_of(cell)
    y, h_n, *more = getattr(module.kernels, f"{name}_sequence")(*args, True)
    count = 3 if cell == "lstm" else 2  # of states and x
    saved = more[1:] if cell == "lstm" else more
    grads = [torch.randn_like(y), None, torch.randn_like(h_n)][:count]
    backward = (*grads, *args[: count + 2], y, *saved, *args[count + 2 :], wanted)
    torch.library.opcheck(getattr(module.kernels, f"{name}_sequence_backward"), backward)


@pytest.mark.parametrize("backend", KERNELS)
def test_opcheck_steps(module, backend):
    x, h, c = torch.randn(3, 5), torch.randn(3, 4), torch.randn(3, 4)
    for cell, states, tail in (
        ("lstm", (h, c), ()),
        ("gru", (h,), ()),
        ("rnn", (h,), (True,)),
    ):
        problem = make(Case(cell if cell != "rnn" else "relu", I=5, H=4)).to(device_of(backend))
        weights = problem.weights
        op = getattr(module.kernels, f"{cell}_step")
        torch.library.opcheck(op, (x, *states, weights, *tail))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("additive", [False, True], ids=["dot", "additive"])
def test_opcheck_attention(module, backend, additive):
    query, keys, values = torch.randn(2, 7), torch.randn(2, 4, 5), torch.randn(2, 4, 3)
    v = torch.randn(5) if additive else None
    lengths = torch.tensor([4, 0])
    args = (query, keys, values, lengths, additive, 0.5, torch.randn(5, 7), v)
    torch.library.opcheck(module.kernels.attention_step, args)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("bias", [False, True], ids=["nobias", "bias"])
def test_opcheck_vocab(module, backend, bias):
    args = (torch.randn(2, 7), torch.randn(11, 7), torch.zeros(11) if bias else None, 3)
    torch.library.opcheck(module.kernels.vocab_pick, args)


def test_opcheck_info():
    # The fourth check compares outputs as tensors, and this one is a string.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.seq2seq_ext.cpu_isa.default, (), test_utils=checks)


def run_sequence(cell, x, states, weights, lengths):
    if cell == "lstm":
        return ops.lstm_sequence(x, *states, weights, lengths=lengths)
    if cell == "gru":
        return ops.gru_sequence(x, *states, weights, lengths=lengths)
    return ops.rnn_sequence(x, *states, weights, nonlinearity=cell, lengths=lengths)


@pytest.fixture
def _fresh_dynamo():
    """Nothing compiled before; compiling a function a second time is an error."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("cell", CELLS)
def test_compile_sequence(cell):
    """One graph for every batch and length, forward and backward, same numbers as eager."""
    weights = [w.requires_grad_() for w in make(Case(cell, I=5, H=4, directions=2)).weights]

    def call(x, states, lengths):
        return run_sequence(cell, x * 2, states, weights, lengths)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for T, B in ((11, 6), (9, 3), (12, 7)):
        problem = make(Case(cell, T=T, B=B, I=5, H=4, directions=2, lengths="ragged"))
        states = [s for s in (problem.h0, problem.c0) if s is not None]
        x = problem.x.requires_grad_()
        results = []
        for function in (call, compiled):
            outputs = function(x, states, problem.lengths)
            grads = torch.autograd.grad(outputs, [x, *weights], problem.cotangents)
            results.append((*outputs, *grads))
        for eager, traced in zip(*results, strict=True):
            assert torch.equal(eager, traced)


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "gradient"])
def test_compile_decode_step(grad):
    weights = make(Case("lstm", I=6, H=4)).weights
    vocabulary = torch.randn(13, 4)

    def call(x, h, c, keys, lengths):
        h, c = ops.lstm_step(x, h, c, weights)
        context, attention = ops.attention_step(h, keys, keys, lengths=lengths)
        log_probs, words = ops.vocab_pick(h + context, vocabulary, k=2)
        return h, c, context, attention, log_probs, words

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for B, S in ((2, 3), (3, 7), (5, 4)):
        x, keys = torch.randn(B, 6, requires_grad=grad), torch.randn(B, S, 4)
        h, c, lengths = torch.randn(B, 4), torch.randn(B, 4), torch.full((B,), 2)
        for eager, traced in zip(
            call(x, h, c, keys, lengths), compiled(x, h, c, keys, lengths), strict=True
        ):
            assert torch.equal(eager, traced)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compile_with_inductor():
    problem = make(Case("gru", T=4, B=3, I=5, H=4))
    weights = [w.requires_grad_() for w in problem.weights]

    def loss(x):
        return ops.gru_sequence(x, problem.h0, weights)[0].square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    ours = torch.autograd.grad(compiled(problem.x), weights)
    for a, b in zip(ours, torch.autograd.grad(loss(problem.x), weights), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_export(cell):
    class Layer(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.weights = torch.nn.ParameterList(weights)

        def forward(self, x, states, lengths):
            return run_sequence(cell, x, states, list(self.weights), lengths)

    layer = Layer(make(Case(cell, I=5, H=4)).weights)
    time, batch = torch.export.Dim("time", min=2, max=64), torch.export.Dim("batch", min=2, max=64)

    def arguments(T, B):
        problem = make(Case(cell, T=T, B=B, I=5, H=4, lengths="ragged"))
        return problem.x, [s for s in (problem.h0, problem.c0) if s is not None], problem.lengths

    example = arguments(3, 2)
    shapes = ({0: time, 1: batch}, [{1: batch}] * len(example[1]), {0: batch})
    program = torch.export.export(layer, example, dynamic_shapes=shapes)
    others = arguments(7, 5)
    for a, b in zip(program.module()(*others), layer(*others), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_meta(cell):
    problem = make(Case(cell, T=3, B=2, directions=2)).to(torch.float32)
    states = [s for s in (problem.h0, problem.c0) if s is not None]
    real = run_sequence(cell, problem.x, states, problem.weights, None)
    meta = run_sequence(
        cell,
        problem.x.to("meta"),
        [s.to("meta") for s in states],
        [w.to("meta") for w in problem.weights],
        None,
    )
    for a, b in zip(real, meta, strict=True):
        assert b.is_meta
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


@pytest.mark.parametrize("cell", CELLS)
def test_inference_mode(cell):
    problem = make(Case(cell, T=3, B=2, lengths="ragged"))
    states = [s for s in (problem.h0, problem.c0) if s is not None]
    weights = [torch.nn.Parameter(w) for w in problem.weights]
    normal = run_sequence(cell, problem.x, states, weights, problem.lengths)
    with torch.inference_mode():
        results = run_sequence(cell, problem.x, states, weights, problem.lengths)
        again = run_sequence(cell, results[0], results[1:], weights, problem.lengths)
    assert all(torch.equal(a, b) for a, b in zip(normal, results, strict=True))
    assert all(r.is_inference() for r in again)


@pytest.mark.parametrize("cell", CELLS)
def test_autocast(cell):
    """Activations become bfloat16; a float32 cell state stays; gradients arrive in float32."""
    problem = make(Case(cell, T=3, B=2, lengths="ragged"))
    states = [s for s in (problem.h0, problem.c0) if s is not None]
    weights = [torch.nn.Parameter(w) for w in problem.weights]
    with torch.autocast("cpu", torch.bfloat16):
        results = run_sequence(cell, problem.x, states, weights, problem.lengths)
    assert [r.dtype for r in results[:2]] == [torch.bfloat16] * 2
    assert all(r.dtype == torch.float32 for r in results[2:])
    low = [t.bfloat16() for t in weights]
    h0 = states[0].bfloat16()
    expected = run_sequence(cell, problem.x.bfloat16(), [h0, *states[1:]], low, problem.lengths)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    results[0].float().sum().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in weights)


def test_autocast_decoding():
    weights = make(Case("lstm", I=6, H=4)).weights
    x, h, c = torch.randn(2, 6), torch.randn(2, 4), torch.randn(2, 4)
    keys = torch.randn(2, 5, 4)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        h_n, c_n = ops.lstm_step(x, h, c, weights)
        context, attention = ops.attention_step(h_n, keys, keys)
        log_probs, _ = ops.vocab_pick(context, torch.randn(9, 4))
        double, _ = ops.lstm_step(*(t.double() for t in (x, h, c)), [w.double() for w in weights])
    assert h_n.dtype == context.dtype == attention.dtype == torch.bfloat16
    assert c_n.dtype == log_probs.dtype == torch.float32
    assert double.dtype == torch.float64, "autocast leaves float64 alone"


@pytest.mark.parametrize("cell", CELLS)
def test_float16(cell):
    """The CPU computes float16 in float32 and rounds the results once."""
    problem = make(Case(cell, torch.float16, T=3, B=2, lengths="ragged"))
    states = [s for s in (problem.h0, problem.c0) if s is not None]
    weights = [torch.nn.Parameter(w) for w in problem.weights]
    results = run_sequence(cell, problem.x, states, weights, problem.lengths)
    wide = run_sequence(
        cell,
        problem.x.float(),
        [s.float() for s in states],
        [w.float() for w in problem.weights],
        problem.lengths,
    )
    assert all(torch.equal(a, b.half()) for a, b in zip(results, wide, strict=True))
    results[0].sum().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float16 for w in weights)


def test_float16_decoding():
    weights = make(Case("gru", torch.float16, I=6, H=4)).weights
    with torch.no_grad():
        h = ops.gru_step(torch.randn(2, 6).half(), torch.randn(2, 4).half(), weights)
    context, _ = ops.attention_step(h, h[:, None], h[:, None])
    log_probs, _ = ops.vocab_pick(context, torch.randn(9, 4).half())
    assert h.dtype == context.dtype == torch.float16
    assert log_probs.dtype == torch.float32
    assert torch.equal(context, h), "one source position holds all the weight"
