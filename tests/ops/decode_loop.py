# SPDX-License-Identifier: MIT
"""The loop on a GPU and the loop in Python on the same kernels, for the tests that compare them."""

import contextlib
import functools

import pytest
import torch

from seq2seq_ext import ops
from seq2seq_ext.generation import native, support
from tests.generation.models import ALL_KINDS, EOS, make, sources
from tests.ops.cases import device_of

BACKENDS = ("cuda_host", pytest.param("cuda", marks=pytest.mark.cuda))
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
V = 233  # two tiles of 128 words
BEAMS = {"num_beams": 3, "num_return_sequences": 2}
GROUPS = {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 4}
SAMPLES = {"do_sample": True, "seed": 5, "num_return_sequences": 2}


@functools.lru_cache
def model_of(kind=4, cell="lstm", dtype=torch.float32, vocab=V, hidden=36, embedding=16):
    with torch.device("cpu"):
        torch.manual_seed(11 + kind)
        sizes = {"hidden_size": hidden, "embedding_size": embedding, "num_layers": 1 + kind % 2}
        sizes["bidirectional"] = hidden % 2 == 0
        sizes["eos"] = EOS if vocab > max(EOS) else min(2, vocab - 1)
        sizes["bos_token_id"] = min(1, vocab - 1)
        if ALL_KINDS[kind].get("tied_embeddings"):
            sizes["embedding_size"] = hidden
        return make(dtype, vocab, cell=cell, **{**sizes, **ALL_KINDS[kind]})


def batch_of(rows=5, vocab=V):
    with torch.device("cpu"):
        torch.manual_seed(2)
        return sources(rows, 9, vocab)


def on(backend, *things):
    return [thing.to(device_of(backend)) for thing in things]


@contextlib.contextmanager
def only_the_loop():
    """Decodes by the loop on the device, once, and by no other."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        decode = ops.kernels.decode
        patch.setattr(ops.kernels, "decode", lambda *a: (calls.append(1), decode(*a))[1])
        patch.setitem(support._DTYPES, "cpu", DTYPES)  # the CPU's own loop takes no float16
        yield
    assert calls == [1]


def generate(model, src, lengths, **options):
    with only_the_loop():
        return model.generate(src, lengths, return_dict_in_generate=True, **options)


def expect_same(got, want, *, ranks=True):
    """ranks: to the bit. The repetition penalty takes a logit from the log-probability in one loop,
    and the logit itself in the other; coverage is summed up in another order on a GPU."""
    for name, value in zip(want._fields, want, strict=True):
        found = getattr(got, name)
        assert (found is None) == (value is None), name
        if name == "beam_scores" and value is not None and not ranks:
            torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-6)
        else:
            assert value is None or torch.equal(found, value), name


def compare(backend, model, batch, **options):
    model, src, lengths = on(backend, model, *batch)
    options = {"max_new_tokens": 9, **options}
    got = generate(model, src, lengths, **options)
    with native.disabled():
        want = model.generate(src, lengths, return_dict_in_generate=True, **options)
    penalized = options.get("repetition_penalty", 1) != 1 or options.get("coverage_penalty")
    expect_same(got, want, ranks=not penalized)
    return got
