# SPDX-License-Identifier: MIT
"""Single ops beside torch's own, by pytest-benchmark: for the work on a kernel.

    make bench-ops                                            # all
    python -m pytest benchmarks/test_ops.py -k lstm_step      # one group, our op and torch's
    python -m pytest benchmarks/test_ops.py --benchmark-autosave --benchmark-compare

Times of one machine at one moment; what is published comes from the interleaved runs beside this.
"""

import pytest
import torch
from torch import nn

from seq2seq_ext import nn as ours
from seq2seq_ext import ops

pytestmark = pytest.mark.usefixtures("inference")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CELLS = {"lstm": (nn.LSTM, ours.LSTM), "gru": (nn.GRU, ours.GRU)}


@pytest.fixture
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(params=DTYPES)
def dtype(request):
    return DTYPES[request.param]


def group(benchmark, name, *sizes):
    benchmark.group = f"{name} {sizes}"


@pytest.mark.parametrize("who", ["torch", "seq2seq_ext"])
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_step(benchmark, cell, batch, dtype, who):
    group(benchmark, f"{cell}_step", batch, 512, str(dtype))
    kind = {"lstm": "LSTMCell", "gru": "GRUCell"}[cell]
    module = getattr(nn if who == "torch" else ours, kind)(512, 512, dtype=dtype)
    x, h = torch.randn(2, batch, 512).to(dtype)
    benchmark(module, x, (h, h.clone()) if cell == "lstm" else h)


@pytest.mark.parametrize("who", ["torch", "seq2seq_ext"])
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_sequence(benchmark, cell, batch, dtype, who):
    group(benchmark, f"{cell}_sequence", 50, batch, 256, str(dtype))
    theirs, own = CELLS[cell]
    module = (theirs if who == "torch" else own)(256, 256, dtype=dtype)
    benchmark(module, torch.randn(50, batch, 256).to(dtype))


@pytest.mark.parametrize("who", ["torch", "seq2seq_ext"])
@pytest.mark.parametrize("batch", [1, 16])
def test_vocab_pick(benchmark, batch, dtype, who):
    group(benchmark, "vocab_pick", batch, 512, 8000, str(dtype))
    hidden, weight = torch.randn(batch, 512).to(dtype), torch.randn(8000, 512).to(dtype)
    bias = torch.randn(8000).to(dtype)

    def by_torch():
        logits = nn.functional.linear(hidden, weight, bias).float()
        return logits.log_softmax(1).max(1)

    benchmark(by_torch if who == "torch" else lambda: ops.vocab_pick(hidden, weight, bias))


@pytest.mark.parametrize("who", ["torch", "seq2seq_ext"])
@pytest.mark.parametrize("score", ["dot", "additive"])
def test_attention_step(benchmark, score, dtype, who):
    group(benchmark, f"attention_step, {score}", 16, 30, 512, str(dtype))
    query, keys = torch.randn(16, 512).to(dtype), torch.randn(16, 30, 512).to(dtype)
    w_query, v = torch.randn(512, 512).to(dtype), torch.randn(512).to(dtype)
    additive = {"w_query": w_query, "v": v} if score == "additive" else {}

    def by_torch():
        if score == "additive":
            scores = torch.tanh((query @ w_query.T)[:, None] + keys) @ v
        else:
            scores = torch.bmm(keys, query[..., None])[..., 0]
        weights = scores.softmax(1)
        return torch.bmm(weights[:, None], keys)[:, 0], weights

    def by_ours():
        return ops.attention_step(query, keys, keys, score=score, **additive)

    benchmark(by_torch if who == "torch" else by_ours)
