# SPDX-License-Identifier: MIT
"""Greedy decoding, sampling, given tokens and beam search over candidates that are told, to the bit
against the same in Python."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from seq2seq_ext.generation import processors  # noqa: E402
from seq2seq_ext.generation.beam import BeamSearch  # noqa: E402
from seq2seq_ext.generation.config import GenerationConfig  # noqa: E402
from seq2seq_ext.generation.picking import Picking  # noqa: E402
from seq2seq_ext.generation.proposals import Candidates  # noqa: E402

pytestmark = pytest.mark.skipif(
    "SEQ2SEQ_EXT_NESTED_TEST" in os.environ and "LD_PRELOAD" not in os.environ,
    reason="the same code whatever the ISA",
)

GREEDY, SAMPLE, BEAM, GIVEN = range(4)
EARLY_STOPPING = {False: 0, True: 1, "never": 2}
SEEDS = st.integers(0, 2**32 - 1)

# Scores lie on a coarse grid, so that many are equal.


def random_candidates(rng, rows, V, *, banned=0.15, stuck=0.02):
    """(rows, V) Candidates in float32: some banned, of some rows all."""
    # Now and then a step costs next to nothing: longer hypotheses may rank before shorter ones.
    scores = -np.float32(rng.choice([0.25, 2.0**-6])) * rng.integers(0, 9, (rows, V)).astype(
        np.float32
    )
    if rng.random() < 0.3:
        scores -= rng.random((rows, V), dtype=np.float32)
    log_probs = -rng.random((rows, V), dtype=np.float32)
    scores[(rng.random((rows, V)) < banned) | (rng.random((rows, 1)) < stuck)] = -math.inf
    tokens = np.argsort(-scores, axis=1, kind="stable")
    found = tokens, np.take_along_axis(scores, tokens, 1), np.take_along_axis(log_probs, tokens, 1)
    return Candidates(*map(torch.from_numpy, found))


def native_row(candidates, row, count):
    """What the engine hands over of it."""
    tokens, scores, log_probs = (part[row].numpy() for part in candidates)
    listed = np.flatnonzero(scores > -math.inf)[:count]
    return {
        "tokens": tokens[listed],
        "scores": scores[listed].astype(np.float64),
        "log_probs": log_probs[listed].astype(np.float64),
        "finite": not np.isnan(scores).any(),
    }


def cut(candidates, count):
    return Candidates(*(part[:, :count] for part in candidates))


class BeamRun:
    """One source, by Python and by the source of that number of a native strategy."""

    def __init__(self, config, native, source, length, size, rng):
        self.config, self.native, self.source, self.rng = config, native, source, rng
        self.size = size
        self.search = BeamSearch(config, torch.tensor([length]), size)
        self.step, self.live = 0, native.begin(source)[3]
        self.check_live()

    def check_live(self):
        assert self.live == (self.search.scores > -math.inf).flatten().tolist()

    def advance(self, V, banned, undefined):
        K = self.config.num_beams
        candidates = random_candidates(self.rng, K, V, banned=banned)
        for row in np.flatnonzero(self.rng.random(K) < undefined):
            candidates.scores[row] = math.nan
        weights = self.rng.random((K, self.size)).astype(np.float32) ** 3
        weights[self.rng.random(weights.shape) < 0.1] = 0
        listed = self.native.wanted if self.rng.random() < 0.5 else V  # or more than is wanted
        rows = [native_row(candidates, k, listed) if self.live[k] else None for k in range(K)]
        cover = self.config.coverage_penalty > 0
        given = weights.astype(np.float64) if cover else None
        tokens, parents, log_probs, self.live = self.native.advance(
            self.source, self.step, rows, given
        )
        count = self.search.count(V)
        assert self.native.wanted == count
        choice = self.search.advance(
            self.step, cut(candidates, count), torch.from_numpy(weights) if cover else None
        )
        self.check_live()
        for k in np.flatnonzero(self.live):
            assert tokens[k] == choice.tokens[0, k]
            assert parents[k] == choice.parents[0, k]
            assert log_probs[k] == choice.log_probs[0, k]
        self.step += 1

    def finish(self):
        found = self.search.hypotheses()
        assert bool(self.search.group_done.all())
        for i, (length, slot, token, log_prob, rank) in enumerate(self.native.finish(self.source)):
            assert length == found.lengths[0, i]
            assert rank == found.scores[0, i]
            if rank > -math.inf and length:
                assert slot == found.rows[0, i]
                assert token == found.tokens[0, i]
                assert log_prob == found.log_probs[0, i]


@given(
    V=st.integers(2, 9),
    width=st.integers(1, 5),
    groups=st.sampled_from([1, 1, 2, 3]),
    eos=st.sampled_from([(), (0,), (1,), (0, 1)]),
    steps=st.integers(1, 14),
    length_penalty=st.sampled_from([1.0, 0.0, 0.6, -0.7, 2.0]),
    coverage_penalty=st.sampled_from([0.0, 0.0, 0.4]),
    diversity_penalty=st.sampled_from([0.25, 0.3, 2.0]),
    early_stopping=st.sampled_from(list(EARLY_STOPPING)),
    banned=st.sampled_from([0.0, 0.15, 0.7]),
    undefined=st.sampled_from([0.0, 0.0, 0.1]),
    seed=SEEDS,
)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_beam_search(cpu_kernels, V, width, groups, eos, steps, banned, undefined, seed, **options):
    rng = np.random.default_rng(seed)
    if groups == 1:
        options["diversity_penalty"] = 0.0
    K = width * groups
    results = int(rng.integers(1, K, endpoint=True))
    config = GenerationConfig(
        num_beams=K,
        num_beam_groups=groups,
        num_return_sequences=results,
        eos_token_id=eos,
        max_new_tokens=steps,
        **options,
    )
    options["early_stopping"] = EARLY_STOPPING[options["early_stopping"]]
    lengths, S = rng.integers(0, 6, 2), 5
    native = cpu_kernels.Strategy(
        V,
        lengths,
        S,
        mode=BEAM,
        slots=K,
        groups=groups,
        results=results,
        eos=eos,
        max_new_tokens=steps,
        **options,
    )
    running = [BeamRun(config, native, b, int(lengths[b]), S, rng) for b in (1, 0)]
    while running:
        run = running[rng.integers(len(running))]  # sources do not wait for each other
        run.advance(V, banned, undefined)
        if not any(run.live):
            run.finish()
            running.remove(run)


def run_picking(native, picking, config, source, rng, V, K):
    """All steps of one source; compares them, and the hypotheses."""
    live = native.begin(source)[3]
    assert live == [True] * K
    for step in range(config.max_new_tokens):
        candidates = random_candidates(rng, K, V)
        listed = native.wanted if native.wanted and rng.random() < 0.5 else V
        rows = [native_row(candidates, k, listed) if live[k] else None for k in range(K)]
        before = live
        tokens, parents, log_probs, live = native.advance(source, step, rows)
        stuck = [row is not None and not len(row["tokens"]) for row in rows]
        choice = picking.advance(step, cut(candidates, picking.count(V)), None)
        for k in range(K):
            if before[k] and not stuck[k]:
                assert parents[k] == k
                assert tokens[k] == choice.tokens[0, k]
                assert log_probs[k] == choice.log_probs[0, k]
        last = step + 1 == config.max_new_tokens
        assert live == (~picking.done[0] & (not last)).tolist()
        if not any(live):
            break
    found = native.finish(source)
    assert [row[:2] for row in found] == [
        (int(length), k) for k, length in enumerate(picking.hypotheses().lengths[0])
    ]


@given(
    V=st.integers(1, 9),
    sample=st.booleans(),
    K=st.integers(1, 4),
    eos=st.sampled_from([(), (0,), (0, 3)]),
    temperature=st.sampled_from([1.0, 0.7, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.0]),
    min_p=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    row_id=st.integers(0, 2**32 - 1),
)
@settings(max_examples=250, deadline=None, derandomize=True, database=None)
def test_picking(cpu_kernels, V, sample, K, eos, seed, row_id, **options):
    rng = np.random.default_rng(seed)
    K = K if sample else 1
    config = GenerationConfig(
        do_sample=sample,
        num_return_sequences=K,
        eos_token_id=eos,
        max_new_tokens=6,
        seed=seed,
        **options,
    )
    native = cpu_kernels.Strategy(
        V,
        np.array([3, 3]),
        3,
        mode=SAMPLE if sample else GREEDY,
        slots=K,
        results=K,
        eos=eos,
        max_new_tokens=6,
        seed=seed,
        row_ids=[5, row_id],
        **options,
    )
    picking = Picking(config, torch.tensor([row_id]))
    run_picking(native, picking, config, 1, rng, V, K)


@given(
    top_p=st.sampled_from([1.0, 0.95, 0.3]),
    min_p=st.sampled_from([0.0, 0.02]),
    temperature=st.sampled_from([1.0, 0.6]),
    seed=SEEDS,
)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_what_is_not_listed_weighs(cpu_kernels, top_p, min_p, temperature, seed):
    rng, V = np.random.default_rng(seed), 60
    scores = np.sort(rng.normal(size=(1, V)) * 2)[:, ::-1].copy()
    options = {"top_p": top_p, "min_p": min_p, "temperature": temperature, "seed": seed}
    config = GenerationConfig(do_sample=True, top_k=0, **options)
    native = cpu_kernels.Strategy(V, np.array([1]), 1, mode=SAMPLE, max_new_tokens=2, **options)
    native.begin(0)
    candidates = Candidates(torch.arange(V)[None], *[torch.from_numpy(scores)] * 2)
    choice = Picking(config, torch.tensor([0])).advance(0, candidates, None)
    below = (scores[0] - scores[0, 0]) / temperature
    kept = processors.truncate(torch.from_numpy(scores / temperature), top_p=top_p, min_p=min_p)
    listed = int((kept > -math.inf).sum())
    row = native_row(candidates, 0, listed) | {"rest": np.exp(below[listed:]).sum()}
    assert native.advance(0, 0, [row])[0] == choice.tokens[0].tolist()
    # Without the rest fewer would be left in: then the draw is another one, now and then.
    assert (native.wanted == 0) == (top_p == 1 and min_p == 0)


def draws(native, count, **row):
    native.begin(0)
    return {one_row(native, step, **row)[0][0] for step in range(count)}


def test_the_edge_of_top_p(cpu_kernels):
    """Two halves: the first is top_p = 0.5, and the second is not there; just above, it is."""
    row = {"tokens": [3, 8], "log_probs": [-1.0, -1.0]}
    options = {"mode": SAMPLE, "max_new_tokens": 99, "seed": 5}
    half = cpu_kernels.Strategy(9, np.array([1]), 1, top_p=0.5, **options)
    assert draws(half, 20, **row) == {3}
    more = cpu_kernels.Strategy(9, np.array([1]), 1, top_p=math.nextafter(0.5, 1), **options)
    assert draws(more, 20, **row) == {3, 8}


def test_equal_draws_go_to_the_lowest_token(cpu_kernels):
    V = 300_000
    noise = cpu_kernels.exact_gumbel(1, 0, 0, np.arange(V))
    values, counts = np.unique(noise, return_counts=True)
    pairs = [np.flatnonzero(noise == value).tolist() for value in values[counts == 2]]
    assert pairs
    for pair in pairs:
        for tokens in (pair, pair[::-1]):
            native = cpu_kernels.Strategy(V, np.array([1]), 1, mode=SAMPLE, seed=1)
            assert draws(native, 1, tokens=tokens, log_probs=[-1.0, -1.0]) == {pair[0]}


def one_row(native, step, **row):
    row = {"tokens": [], "scores": row.get("log_probs", []), "log_probs": [], **row}
    return native.advance(0, step, [row])


def test_a_draw_that_is_made_already(cpu_kernels):
    options = {"mode": SAMPLE, "max_new_tokens": 5, "eos": [2]}
    native = cpu_kernels.Strategy(9, np.array([1]), 1, **options)
    assert native.wanted == 0
    native.begin(0)
    for token, live in ((7, True), (2, False)):
        row = {"tokens": [token], "log_probs": [-1.5], "drawn": True}
        assert one_row(native, 0, **row) == ([token], [0], [-1.5], [live])
    assert native.finish(0)[0][0] == 2


@pytest.mark.parametrize("mode", [GREEDY, SAMPLE])
def test_undefined_rows_end(cpu_kernels, mode):
    native = cpu_kernels.Strategy(9, np.array([1]), 1, mode=mode, max_new_tokens=5)
    native.begin(0)
    one_row(native, 0, tokens=[7], log_probs=[-1.0])
    assert one_row(native, 1, finite=False)[3] == [False]
    assert native.finish(0)[0][0] == 1


def test_given_tokens(cpu_kernels):
    options = {"given": [[4, 4, 4], [3, 5, 1]], "given_lengths": [0, 2], "eos": [3]}
    native = cpu_kernels.Strategy(9, np.array([1, 1]), 1, mode=GIVEN, **options)
    assert native.wanted == 0
    assert native.begin(0)[3] == [False]
    assert native.finish(0)[0][0] == 0
    assert native.begin(1)[3] == [True]
    for step, (token, live) in enumerate([(3, True), (5, False)]):
        row = {"tokens": [token], "scores": [-9.0], "log_probs": [-step - 0.5]}
        assert native.advance(1, step, [row]) == ([token], [0], [-step - 0.5], [live])
    assert native.finish(1)[0][:2] == (2, 0)
