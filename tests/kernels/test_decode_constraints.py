# SPDX-License-Identifier: MIT
"""Decoding's constraints, exp, log and noise, to the bit against the same in Python."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from seq2seq_ext.generation import exact, philox, processors  # noqa: E402
from seq2seq_ext.generation.config import GenerationConfig  # noqa: E402
from seq2seq_ext.generation.constraints import Constraints  # noqa: E402
from seq2seq_ext.generation.proposals import Proposals  # noqa: E402

pytestmark = pytest.mark.skipif(
    "SEQ2SEQ_EXT_NESTED_TEST" in os.environ and "LD_PRELOAD" not in os.environ,
    reason="the same code whatever the ISA",
)

# --------------------------------------------------------------------------------------------------
# exp, log, noise.


def doubles(rng, low, high):
    """1e5 from many magnitudes, e**low ... e**high."""
    return np.exp(rng.uniform(low, high, 100_000))


def same_bits(a, b):
    np.testing.assert_array_equal(np.asarray(a).view(np.int64), np.asarray(b).view(np.int64))


def test_exp(cpu_kernels, rng):
    edges = [0.0, -0.0, -5e-324, -708.3, -708.4, -708.5, -744.9, -745.0, -745.2, -1e300, -math.inf]
    halves = -(np.arange(1000) + 0.5) * math.log(2)  # k = x / log 2 between two whole numbers
    x = np.concatenate([edges, halves, -doubles(rng, -40, 6.7), rng.uniform(-3, 0, 1000)])
    same_bits(cpu_kernels.exact_exp(x), exact.exp(torch.from_numpy(x)).numpy())
    assert np.isnan(cpu_kernels.exact_exp(np.array([math.nan]))).all()


def test_log(cpu_kernels, rng):
    root = math.sqrt(0.5)
    edges = [0.0, 1.0, math.inf, 5e-324, 2.0**-1022, 1.7e308, 0.5, 2.0]
    edges += [root, np.nextafter(root, 0), np.nextafter(root, 1), np.nextafter(1, 0), 1 + 2**-52]
    x = np.concatenate([edges, doubles(rng, -745, 709), rng.uniform(0, 2, 1000)])
    same_bits(cpu_kernels.exact_log(x), exact.log(torch.from_numpy(x)).numpy())


@given(seed=st.integers(0, 2**64 - 1), row=st.integers(0, 2**63 - 1), step=st.integers(0, 99999))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_noise(cpu_kernels, seed, row, step):
    tokens = np.concatenate([np.arange(200), [31999, 2**31 - 1]])
    expected = philox.gumbel(seed, torch.tensor([row]), step, torch.from_numpy(tokens[None]))
    same_bits(cpu_kernels.exact_gumbel(seed, row, step, tokens), expected[0].numpy())


# --------------------------------------------------------------------------------------------------
# Constraints.


@st.composite
def constraint_options(draw):
    """(V, B, options of GenerationConfig)"""
    V, B = draw(st.sampled_from([2, 5, 33, 70])), draw(st.integers(1, 3))
    token = st.integers(0, V - 1)
    words = st.lists(st.lists(token, min_size=1, max_size=4), max_size=5)
    return (
        V,
        B,
        {
            "eos_token_id": draw(st.lists(token, max_size=2, unique=True).map(sorted)),
            "min_new_tokens": draw(st.sampled_from([0, 0, 3, 9])),
            "suppress_tokens": draw(st.lists(token, max_size=3)),
            "bad_words_ids": draw(st.one_of(st.just([]), words)),
            "no_repeat_ngram_size": draw(st.sampled_from([0, 0, 1, 2, 3])),
            "repetition_penalty": draw(st.sampled_from([1.0, 1.3, 0.7])),
            "max_new_tokens": 99,
        },
    )


@given(
    case=constraint_options(),
    allowed_rows=st.sampled_from([0, 1, "B"]),
    prefix_size=st.sampled_from([0, 0, 4]),
    has_shortlist=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_constraints(cpu_kernels, case, allowed_rows, prefix_size, has_shortlist, seed):
    V, B, options = case
    rng, K = np.random.default_rng(seed), 2
    words = np.flatnonzero(rng.random(V) < 0.6) if has_shortlist else np.arange(V)
    config = GenerationConfig(**options)
    native = {
        "eos": config.eos_token_ids,
        "banned": config.banned_token_ids,
        "phrases": [word for word in config.bad_words_ids if len(word) > 1],
    }
    for name in ("min_new_tokens", "no_repeat_ngram_size", "repetition_penalty"):
        native[name] = options[name]
    allowed = prefix = None
    if allowed_rows:
        allowed = rng.random((B if allowed_rows == "B" else 1, V)) < 0.7
        native["allowed"] = np.ascontiguousarray(allowed[:, words], dtype=np.uint8)
        allowed = torch.from_numpy(allowed)
    if prefix_size and len(words):
        prefix = rng.choice(words, (B, prefix_size))  # forced tokens are in the shortlist
        prefix[np.arange(prefix_size) >= rng.integers(0, prefix_size + 1, (B, 1))] = -1
        native["prefix"], prefix = prefix, torch.from_numpy(prefix)
    predictor = SimpleNamespace(device=torch.device("cpu"), has_top=True, vocab_size=V)
    constraints = Constraints(torch.arange(B), prefix, allowed)
    proposals = Proposals(predictor, config, constraints)
    tested = cpu_kernels.Constraints(B, len(words), words if has_shortlist else None, **native)
    assert tested.needs_history == proposals.needs_history
    history = rng.integers(0, rng.integers(2, 5, endpoint=True) if V > 5 else V, (B * K, 12))
    for step in range(12):
        past = torch.from_numpy(history[:, : step if proposals.needs_history else 0])
        banned = proposals.banned_early if step < config.min_new_tokens else proposals.banned
        out = proposals.bans(torch.arange(B), step, past, banned).numpy()
        seen = processors.seen_tokens(past, V).numpy() & (config.repetition_penalty != 1)
        for row in range(B * K):
            own = np.ascontiguousarray(history[row, :step])
            mask, also, penalized, forced = tested.row(row // K, step, own)
            assert also == sorted(set(also))
            assert penalized == sorted(set(penalized))
            mask[also] = True
            if forced >= 0:
                mask = np.arange(len(words)) != forced
            assert mask.tolist() == out[row, words].tolist()
            assert penalized == np.flatnonzero(seen[row, words]).tolist()
            assert tested.any or not (mask.any() or penalized or forced >= 0)
