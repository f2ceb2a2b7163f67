# SPDX-License-Identifier: MIT
"""Bad input: which message comes. One table for the C++ checks, the Python ones and the fakes."""

from __future__ import annotations

import math
import re

import pytest
import torch

from seq2seq_ext import ops
from tests.ops.cases import KERNELS, device_of

f32 = torch.float32


def t(*shape, dtype=f32):
    return (
        torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
    )


def lstm():
    """T 3, B 2, I 5, H 4."""
    weights = [t(16, 5), t(16, 4), t(16), t(16)]
    return {"x": t(3, 2, 5), "h0": t(1, 2, 4), "c0": t(1, 2, 4), "weights": weights}


def gru():
    return {"x": t(3, 2, 5), "h0": t(1, 2, 4), "weights": [t(12, 5), t(12, 4), t(12), t(12)]}


def rnn():
    return {"x": t(3, 2, 5), "h0": t(1, 2, 4), "weights": [t(4, 5), t(4, 4), t(4), t(4)]}


def lstm_step():
    weights = [t(16, 5), t(16, 4), t(16), t(16)]
    return {"x": t(2, 5), "h": t(2, 4), "c": t(2, 4), "weights": weights}


def gru_step():
    return {"x": t(2, 5), "h": t(2, 4), "weights": [t(12, 5), t(12, 4)]}


def rnn_step():
    return {"x": t(2, 5), "h": t(2, 4), "weights": [t(4, 5), t(4, 4)]}


def projected():
    """A projection to nothing: all that is wrong is h0."""
    return lstm() | {"weights": [t(16, 5), t(16, 0), t(0, 4)]}


def projected_step():
    return lstm_step() | {"weights": [t(16, 5), t(16, 0), t(0, 4)]}


def attention():
    return {"query": t(2, 4), "keys": t(2, 3, 4), "values": t(2, 3, 6)}


def vocab():
    return {"hidden": t(2, 4), "weight": t(7, 4), "bias": t(7)}


def sample():
    return vocab() | {"seed": torch.tensor(1), "step": torch.tensor(2)}


def replaced(n, tensor):
    """Another tensor as weights[n]."""
    return lambda weights: [tensor if m == n else w for m, w in enumerate(weights)]


LSTM, GRU, RNN = (ops.lstm_sequence, lstm), (ops.gru_sequence, gru), (ops.rnn_sequence, rnn)
LSTM_STEP, GRU_STEP, RNN_STEP = (
    (ops.lstm_step, lstm_step),
    (ops.gru_step, gru_step),
    (ops.rnn_step, rnn_step),
)
PROJECTED, PROJECTED_STEP = (ops.lstm_sequence, projected), (ops.lstm_step, projected_step)
ATTENTION, VOCAB = (ops.attention_step, attention), (ops.vocab_pick, vocab)
SAMPLE = (ops.vocab_sample, sample)
i32, i64 = torch.int32, torch.int64

# (what, argument, value, message)
TABLE = [
    (LSTM, "x", t(3, 5), "x: expected 3 dimensions (T, B, I), got shape (3, 5)"),
    (LSTM, "x", t(0, 2, 5), "x: expected T >= 1, got shape (0, 2, 5)"),
    (GRU, "x", t(0, 2, 5), "x: expected T >= 1, got shape (0, 2, 5)"),
    (RNN, "x", t(3, 2, 0), "x: expected I >= 1, got shape (3, 2, 0)"),
    (
        LSTM,
        "x",
        t(3, 2, 5, dtype=i64),
        "x: expected dtype float32, float64, bfloat16 or float16, got int64",
    ),
    (LSTM, "x", t(3, 2, 6), "weights[0] (w_ih): expected shape (16, 6), got shape (16, 5)"),
    (GRU, "h0", t(2, 4), "h0: expected 3 dimensions (D, B, P), got shape (2, 4)"),
    (GRU, "h0", t(1, 3, 4), "h0: expected shape (1, 2, 4), got shape (1, 3, 4)"),
    (
        GRU,
        "h0",
        t(3, 2, 4),
        "h0: expected 1 or 2 directions (D, B, P), got shape (3, 2, 4)",
    ),
    (LSTM, "h0", t(1, 2, 4, dtype=torch.float64), "h0: expected x's dtype float32, got float64"),
    (LSTM, "h0", t(1, 2, 3), "h0: expected last dimension 4, got 3"),
    (GRU, "h0", t(1, 2, 0), "h0: expected P >= 1, got shape (1, 2, 0)"),
    (PROJECTED, "h0", t(1, 2, 0), "h0: expected P >= 1, got shape (1, 2, 0)"),
    (LSTM, "c0", t(1, 2, 5), "c0: expected shape (1, 2, 4), got shape (1, 2, 5)"),
    (LSTM, "c0", t(1, 2, 4, dtype=torch.bfloat16), "c0: expected x's dtype float32, got bfloat16"),
    (LSTM, "weights", [], "weights: expected 2, 3, 4 or 5 tensors per direction, got 0 for 1"),
    (
        GRU,
        "weights",
        [t(12, 5), t(12, 4), t(12)],
        "weights: expected 2 or 4 tensors per direction, got 3 for 1",
    ),
    (
        GRU,
        "weights",
        replaced(0, t(13, 5)),
        "weights[0] (w_ih): expected shape (3*H, 5), got shape (13, 5)",
    ),
    (
        GRU,
        "weights",
        replaced(0, t(12)),
        "weights[0] (w_ih): expected shape (3*H, 5), got shape (12,)",
    ),
    (
        RNN,
        "weights",
        replaced(1, t(4, 5)),
        "weights[1] (w_hh): expected shape (4, 4), got shape (4, 5)",
    ),
    (RNN, "weights", replaced(2, t(5)), "weights[2] (b_ih): expected shape (4,), got shape (5,)"),
    (
        LSTM,
        "weights",
        replaced(3, t(16, dtype=torch.bfloat16)),
        "weights[3] (b_hh): expected x's dtype float32, got bfloat16",
    ),
    (
        LSTM,
        "weights",
        lambda w: [*w, t(3, 4)],
        "weights[4] (w_hr): expected shape (4, 4), got shape (3, 4)",
    ),
    (LSTM, "lengths", t(2, dtype=torch.int32), "lengths: expected dtype int64, got int32"),
    (LSTM, "lengths", t(2), "lengths: expected dtype int64, got float32"),
    (GRU, "lengths", t(3, dtype=i64), "lengths: expected shape (2,), got shape (3,)"),
    (GRU, "lengths", t(2, 1, dtype=i64), "lengths: expected shape (2,), got shape (2, 1)"),
    (LSTM, "lengths", torch.tensor([3, 4]), "lengths[1]: expected 0 to 3, got 4"),
    (RNN, "lengths", torch.tensor([-1, 2]), "lengths[0]: expected 0 to 3, got -1"),
    (RNN, "nonlinearity", "sigmoid", "nonlinearity: expected 'tanh' or 'relu', got 'sigmoid'"),
    (LSTM_STEP, "x", t(2, 1, 5), "x: expected 2 dimensions (B, I), got shape (2, 1, 5)"),
    (LSTM_STEP, "h", t(3, 4), "h: expected shape (2, 4), got shape (3, 4)"),
    (LSTM_STEP, "h", t(2, 4, 1), "h: expected 2 dimensions (B, P), got shape (2, 4, 1)"),
    (LSTM_STEP, "h", t(2, 3), "h: expected last dimension 4, got 3"),
    (PROJECTED_STEP, "h", t(2, 0), "h: expected P >= 1, got shape (2, 0)"),
    (RNN_STEP, "h", t(2, 0), "h: expected P >= 1, got shape (2, 0)"),
    (LSTM_STEP, "c", t(2, 3), "c: expected shape (2, 4), got shape (2, 3)"),
    (LSTM_STEP, "c", t(2, 4, dtype=i64), "c: expected x's dtype float32, got int64"),
    (GRU_STEP, "h", t(2, 4, dtype=torch.bfloat16), "h: expected x's dtype float32, got bfloat16"),
    (
        GRU_STEP,
        "weights",
        [t(12, 5)],
        "weights: expected 2 or 4 tensors per direction, got 1 for 1",
    ),
    (RNN_STEP, "x", t(2, 6), "weights[0] (w_ih): expected shape (4, 6), got shape (4, 5)"),
    (RNN_STEP, "nonlinearity", "Tanh", "nonlinearity: expected 'tanh' or 'relu', got 'Tanh'"),
    (ATTENTION, "query", t(4), "query: expected 2 dimensions (B, Q), got shape (4,)"),
    (ATTENTION, "query", t(2, 5), "query: expected last dimension 4 (no w_query), got 5"),
    (ATTENTION, "keys", t(3, 3, 4), "keys: expected shape (2, 3, 4), got shape (3, 3, 4)"),
    (ATTENTION, "keys", t(2, 0, 4), "keys: expected S >= 1, got shape (2, 0, 4)"),
    (
        ATTENTION,
        "keys",
        t(2, 3, 4, dtype=torch.float64),
        "keys: expected query's dtype float32, got float64",
    ),
    (ATTENTION, "values", t(2, 4, 6), "values: expected shape (2, 3, 6), got shape (2, 4, 6)"),
    (ATTENTION, "w_query", t(5, 4), "w_query: expected shape (4, 4), got shape (5, 4)"),
    (ATTENTION, "score", "cosine", "score: expected 'dot' or 'additive', got 'cosine'"),
    (ATTENTION, "score", "additive", "v: expected a tensor, as score is 'additive', got None"),
    (ATTENTION, "v", t(4), "v: expected None, as score is 'dot', got a tensor"),
    (ATTENTION, "lengths", torch.tensor([0, 9]), "lengths[1]: expected 0 to 3, got 9"),
    (ATTENTION, "lengths", t(1, dtype=i64), "lengths: expected shape (2,), got shape (1,)"),
    (VOCAB, "hidden", t(2, 2, 4), "hidden: expected 2 dimensions (B, H), got shape (2, 2, 4)"),
    (VOCAB, "weight", t(7, 5), "weight: expected shape (7, 4), got shape (7, 5)"),
    (VOCAB, "weight", t(7), "weight: expected 2 dimensions (V, H), got shape (7,)"),
    (
        VOCAB,
        "weight",
        t(7, 4, dtype=torch.float64),
        "weight: expected hidden's dtype float32, got float64",
    ),
    (VOCAB, "bias", t(8), "bias: expected shape (7,), got shape (8,)"),
    (VOCAB, "k", 8, "k: expected 1 to V = 7, got 8"),
    (VOCAB, "k", 0, "k: expected 1 to V = 7, got 0"),
    (VOCAB, "banned", t(2, 1), "banned: expected dtype int32, got float32"),
    (VOCAB, "banned", t(2, 7, dtype=i32), "banned: expected shape (2, 1), got shape (2, 7)"),
    (VOCAB, "temperature", 0.0, "temperature: expected a positive number, got 0.0"),
    (VOCAB, "temperature", -1, "temperature: expected a positive number, got -1"),
    (VOCAB, "temperature", math.nan, "temperature: expected a positive number, got nan"),
    (VOCAB, "temperature", math.inf, "temperature: expected a positive number, got inf"),
    (SAMPLE, "weight", t(7, 5), "weight: expected shape (7, 4), got shape (7, 5)"),
    (SAMPLE, "bias", t(8), "bias: expected shape (7,), got shape (8,)"),
    (SAMPLE, "banned", t(2, 2, dtype=i32), "banned: expected shape (2, 1), got shape (2, 2)"),
    (SAMPLE, "temperature", 0, "temperature: expected a positive number, got 0"),
    (SAMPLE, "seed", t(2, dtype=i64), "seed: expected one element, got shape (2,)"),
    (SAMPLE, "seed", t(1, dtype=i32), "seed: expected dtype int64, got int32"),
    (SAMPLE, "seed", 2**64, f"seed: expected -2**63 to 2**64 - 1, got {2**64}"),
    (SAMPLE, "step", t(1), "step: expected dtype int64, got float32"),
    (SAMPLE, "rows", t(2, dtype=i32), "rows: expected dtype int64, got int32"),
    (SAMPLE, "rows", t(3, dtype=i64), "rows: expected shape (2,), got shape (3,)"),
]
IDS = [
    f"{what[1].__name__}-{message.split(':')[0]}-{n}"
    for n, (what, _, _, message) in enumerate(TABLE)
]


def moved(item, device):
    if isinstance(item, list):
        return [moved(i, device) for i in item]
    return item.to(device) if isinstance(item, torch.Tensor) else item


def call(what, argument, value, device="cpu"):
    function, defaults = what
    arguments = defaults()
    arguments[argument] = value(arguments[argument]) if callable(value) else value
    return function(**{name: moved(item, device) for name, item in arguments.items()})


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(("what", "argument", "value", "message"), TABLE, ids=IDS)
@pytest.mark.usefixtures("module")
def test_compiled(backend, what, argument, value, message):
    if backend == "cuda" and message.startswith("lengths["):
        pytest.skip("values on the device are not looked at")
    with torch.no_grad(), pytest.raises(ValueError, match="^" + re.escape(message)):
        call(what, argument, value, device_of(backend))


@pytest.mark.parametrize(("what", "argument", "value", "message"), TABLE, ids=IDS)
def test_reference(what, argument, value, message, monkeypatch):
    monkeypatch.setattr(ops, "_has_kernel", lambda _: False)
    with torch.no_grad(), pytest.raises(ValueError, match="^" + re.escape(message)):
        call(what, argument, value)


@pytest.mark.parametrize(("what", "argument", "value", "message"), TABLE, ids=IDS)
def test_gradient_path(what, argument, value, message):
    """Where a gradient is needed other code runs; the words are the same."""
    function, defaults = what
    arguments = defaults()
    arguments[argument] = value(arguments[argument]) if callable(value) else value
    first = next(iter(arguments))
    if isinstance(arguments[first], torch.Tensor) and arguments[first].is_floating_point():
        arguments[first].requires_grad_()
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(**arguments)


@pytest.mark.parametrize(("what", "argument", "value", "message"), TABLE, ids=IDS)
def test_meta(what, argument, value, message):
    """What torch.compile would say. Values of `lengths` cannot be seen there."""
    if message.startswith("lengths["):
        pytest.skip("not a matter of shapes")
    with torch.no_grad(), pytest.raises(ValueError, match="^" + re.escape(message)):
        call(what, argument, value, "meta")


# (what, argument, value, message), for what is not even a tensor.
TYPES = [
    (GRU, "x", [[1.0]], "x: expected a tensor, got list"),
    (LSTM, "c0", None, "c0: expected a tensor, got NoneType"),
    (RNN, "weights", None, "weights: expected a list or tuple of tensors, got NoneType"),
    (GRU, "weights", [1.0, 2.0], "weights: expected a list or tuple of tensors, got list"),
    (LSTM, "lengths", [3, 1], "lengths: expected a tensor or None, got list"),
    (LSTM_STEP, "x", 1.0, "x: expected a tensor, got float"),
    (LSTM_STEP, "c", None, "c: expected a tensor, got NoneType"),
    (GRU_STEP, "h", None, "h: expected a tensor, got NoneType"),
    (RNN_STEP, "weights", None, "weights: expected a list or tuple of tensors, got NoneType"),
    (ATTENTION, "keys", None, "keys: expected a tensor, got NoneType"),
    (ATTENTION, "lengths", [3, 1], "lengths: expected a tensor or None, got list"),
    (ATTENTION, "w_query", 1.0, "w_query: expected a tensor or None, got float"),
    (ATTENTION, "scale", "half", "scale: expected a number, got str"),
    (VOCAB, "hidden", None, "hidden: expected a tensor, got NoneType"),
    (VOCAB, "bias", [0.0], "bias: expected a tensor or None, got list"),
    (VOCAB, "k", 1.5, "k: expected an int, got float"),
    (VOCAB, "banned", [0], "banned: expected a tensor or None, got list"),
    (VOCAB, "temperature", "hot", "temperature: expected a number, got str"),
    (SAMPLE, "hidden", 1.0, "hidden: expected a tensor, got float"),
    (SAMPLE, "seed", 1.5, "seed: expected a tensor or an int, got float"),
    (SAMPLE, "step", None, "step: expected a tensor or an int, got NoneType"),
    (SAMPLE, "rows", [0, 1], "rows: expected a tensor or None, got list"),
]
PATHS = ("compiled", "reference", "gradient", "autocast")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("what", "argument", "value", "message"), TYPES)
def test_types(what, argument, value, message, path, monkeypatch):
    function, defaults = what
    arguments = defaults() | {argument: value}
    first = next(iter(arguments))
    if path == "reference":
        monkeypatch.setattr(ops, "_has_kernel", lambda _: False)
    if path == "gradient" and isinstance(arguments[first], torch.Tensor):
        arguments[first].requires_grad_()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=path == "autocast"),
        pytest.raises(TypeError, match="^" + re.escape(message) + "$"),
    ):
        function(**arguments)


def test_two_directions_need_two_sets_of_weights():
    arguments = gru() | {"h0": t(2, 2, 4)}
    # Four tensors for two directions: two without biases. The third is not a w_ih.
    message = r"weights\[2\] \(w_ih\): expected shape \(12, 5\), got shape \(12,\)"
    with pytest.raises(ValueError, match=message):
        ops.gru_sequence(**arguments)
    arguments["weights"] = [*arguments["weights"], t(12, 5)]
    message = "weights: expected 2 or 4 tensors per direction, got 5 for 2"
    with pytest.raises(ValueError, match=message):
        ops.gru_sequence(**arguments)


@pytest.mark.parametrize("what", [LSTM, GRU, RNN])
def test_reverse_is_for_one_direction(what):
    function, defaults = what
    arguments = defaults()
    arguments |= {n: torch.cat([arguments[n]] * 2) for n in ("h0", "c0") if n in arguments}
    arguments["weights"] = arguments["weights"] * 2
    function(**arguments)
    with pytest.raises(ValueError, match="reverse: expected False with two directions, got True"):
        function(**arguments, reverse=True)


@pytest.mark.parametrize("argument", ["h0", "c0", "lengths"])
def test_mixed_devices(argument):
    arguments = lstm() | {"lengths": torch.tensor([1, 2])}
    arguments[argument] = arguments[argument].to("meta")
    with pytest.raises((ValueError, RuntimeError), match=f"{argument}: expected x's device cpu"):
        ops.lstm_sequence(**arguments)


@pytest.mark.cuda
@pytest.mark.parametrize("argument", ["h0", "c0", "lengths"])
def test_mixed_devices_with_cuda(argument):
    arguments = lstm() | {"lengths": torch.tensor([1, 2])}
    arguments = {name: moved(item, "cuda") for name, item in arguments.items()}
    arguments[argument] = arguments[argument].cpu()
    with pytest.raises(ValueError, match=f"{argument}: expected x's device cuda:0, got cpu"):
        ops.lstm_sequence(**arguments)


@pytest.mark.cuda
def test_lengths_on_cuda_are_clamped():
    """They are not read by the host; the kernels keep within T."""
    arguments = {name: moved(item, "cuda") for name, item in gru().items()}
    beyond = ops.gru_sequence(**arguments, lengths=torch.tensor([-5, 99], device="cuda"))
    within = ops.gru_sequence(**arguments, lengths=torch.tensor([0, 3], device="cuda"))
    assert all(torch.equal(a, b) for a, b in zip(beyond, within, strict=True))


def test_mixed_dtypes_with_float16():
    """float16 is cast before the kernel: the mix must not be cast away."""
    arguments = {n: v.half() for n, v in lstm().items() if n != "weights"}
    with pytest.raises(ValueError, match=r"weights\[0\] \(w_ih\): expected x's dtype float16"):
        ops.lstm_sequence(**arguments, weights=lstm()["weights"])
    with pytest.raises(ValueError, match="weight: expected hidden's dtype float16"):
        ops.vocab_pick(t(2, 4).half(), t(7, 4))


def test_the_op_itself_refuses_float16():
    args = [v.half() for n, v in gru().items() if n != "weights"]
    with pytest.raises(ValueError, match="x: expected dtype float32, float64 or bfloat16"):
        torch.ops.seq2seq_ext.gru_sequence(
            *args, [w.half() for w in gru()["weights"]], None, False, False
        )


def test_backward_op_checks_what_it_is_given():
    x, h0, weights = gru().values()
    y, _, gates = torch.ops.seq2seq_ext.gru_sequence(x, h0, weights, None, False, True)
    good = [torch.ones_like(y), None, x, h0, weights, None, y, gates, False, 1]
    torch.ops.seq2seq_ext.gru_sequence_backward(*good)
    for place, bad, message in (
        (0, y[:2], "dy: expected shape (3, 2, 4), got shape (2, 2, 4)"),
        (1, h0[:, :1], "dh_n: expected shape (1, 2, 4), got shape (1, 1, 4)"),
        (6, y[..., :2], "y: expected shape (3, 2, 4), got shape (3, 2, 2)"),
        (7, gates[:, :3], "saved_gates: expected shape (1, 6, 16), got shape (1, 3, 16)"),
        (7, gates.double(), "saved_gates: expected x's dtype float32, got float64"),
    ):
        args = list(good)
        args[place] = bad
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            torch.ops.seq2seq_ext.gru_sequence_backward(*args)
