# SPDX-License-Identifier: MIT
"""Draws from the vocabulary, bans and temperature: every backend against the reference's random
numbers and float64 formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seq2seq_ext import _philox, ops, reference
from tests.ops.cases import BACKENDS, KERNELS, with_dtypes

SEED = 0x0123456789ABCDEF


def number(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int64)


def pack(banned: Tensor) -> Tensor:
    """(B, V) bool -> (B, ceil(V / 32)) int32."""
    B, V = banned.shape
    bits = torch.zeros(B, (V + 31) // 32 * 32, dtype=torch.int64)
    bits[:, :V] = banned
    words = (bits.view(B, -1, 32) << torch.arange(32)).sum(-1)
    return torch.where(words < 2**31, words, words - 2**32).to(torch.int32)


def problem(dtype: torch.dtype, B: int, H: int, V: int) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = torch.randn(B, H), torch.randn(V, H) * 2 * H**-0.5
    return hidden.to(dtype), weight.to(dtype), torch.randn(V).to(dtype)


def exact_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    logits = hidden.double() @ weight.double().T
    return logits if bias is None else logits + bias.double()


def assert_drawn(
    found: tuple[Tensor, Tensor], logits: Tensor, seed: Tensor, step: Tensor, rows: Tensor
) -> None:
    """The word with the largest key in float64, or one within rounding of it; and the
    log-probability that it has without the noise."""
    log_probs, indices = found
    assert log_probs.shape == indices.shape == logits.shape[:1]
    assert indices.dtype == torch.int64
    keys = logits + _philox.gumbel(seed, step, rows, logits.shape[1], torch.float64)
    tolerance = 1e-11 if log_probs.dtype == torch.float64 else 1e-4
    taken = keys.gather(1, indices[:, None])[:, 0]
    assert (taken >= keys.amax(1) - tolerance).all()
    expected = torch.log_softmax(logits, -1).gather(1, indices[:, None])[:, 0]
    torch.testing.assert_close(log_probs.double(), expected, rtol=0, atol=tolerance)


def test_philox_known_answers():
    """Of the authors' own library."""
    expected = {
        0: (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        0xFFFFFFFF: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    }
    for word, words in expected.items():
        given = number(word)
        assert tuple(int(w) for w in _philox.philox([given] * 2, [given] * 4)) == words


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
@pytest.mark.parametrize(("B", "H", "V"), [(1, 1, 1), (3, 7, 11), (20, 17, 300), (9, 64, 1003)])
def test_draws(module, backend, dtype, B, H, V):
    given = problem(dtype, B, H, V)
    rows = torch.arange(B)
    for temperature in (1.0, 0.5):
        logits = exact_logits(*given) / temperature
        for seed, step in ((number(SEED), number(0)), (number(-5), number(2**33 + 7))):
            found = module.vocab_sample(*given, seed=seed, step=step, temperature=temperature)
            assert_drawn(found, logits, seed, step, rows)
    ids = torch.randint(-(2**62), 2**62, (B,))
    found = module.vocab_sample(*given, seed=number(1), step=number(2), rows=ids)
    assert_drawn(found, exact_logits(*given), number(1), number(2), ids)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes())
def test_bans_and_temperature(module, backend, dtype):
    """A banned word is as good as absent, even where its logit is NaN."""
    B, H, V = 6, 9, 77
    hidden, weight, bias = problem(dtype, B, H, V)
    banned = torch.rand(B, V) < 0.5
    banned[:, 0], banned[:, 40] = False, True
    bias[40] = math.nan
    logits = (exact_logits(hidden, weight, bias) / 1.5).masked_fill(banned, -math.inf)
    options = {"banned": pack(banned), "temperature": 1.5}
    log_probs, indices = module.vocab_pick(hidden, weight, bias, k=5, **options)
    exact = torch.log_softmax(logits, -1)
    torch.testing.assert_close(log_probs.double(), exact.topk(5).values, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_probs.double(), exact.gather(1, indices), rtol=0, atol=1e-5)
    log_probs, indices = module.vocab_pick(hidden, weight, bias, k=V, **options)
    for row in range(B):  # banned words last, by index
        last = indices[row][log_probs[row].isneginf()].tolist()
        assert last == banned[row].nonzero()[:, 0].tolist()
    seed, step = number(3), number(4)
    found = module.vocab_sample(hidden, weight, bias, seed=seed, step=step, **options)
    assert_drawn(found, logits, seed, step, torch.arange(B))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_distribution(module, backend):
    hidden, weight, bias = problem(torch.float32, 4, 5, 40)
    seed, step = number(0), number(0)
    clean = module.vocab_sample(hidden, weight, bias, seed=seed, step=step)
    banned = torch.zeros(4, 40, dtype=torch.bool)
    banned[1] = True
    hidden[2, 3] = math.nan
    options = {"seed": seed, "step": step, "banned": pack(banned)}
    log_probs, indices = module.vocab_sample(hidden, weight, bias, **options)
    assert log_probs[1:3].isnan().all()
    assert indices[1:3].tolist() == [0, 0]
    for found, whole in zip((log_probs, indices), clean, strict=True):
        assert torch.equal(found[[0, 3]], whole[[0, 3]])
    log_probs, indices = module.vocab_pick(hidden, weight, bias, k=3, banned=pack(banned))
    assert log_probs[1].isnan().all()
    assert indices[1].tolist() == [0, 1, 2]
    banned[1, 33] = False  # one word left: certain
    log_probs, indices = module.vocab_sample(
        hidden, weight, bias, seed=seed, step=step, banned=pack(banned)
    )
    assert (log_probs[1].item(), indices[1].item()) == (0.0, 33)


@pytest.mark.parametrize("backend", KERNELS)
def test_draws_do_not_depend_on_the_batch(module, backend):
    hidden, weight, bias = problem(torch.float32, 40, 33, 500)
    rows = torch.arange(40)
    options = {"seed": SEED, "step": 9, "temperature": 1.2}
    whole = module.vocab_sample(hidden, weight, bias, **options)
    for part in (slice(0, 1), slice(7, 8), slice(3, 20), slice(31, 40)):
        found = module.vocab_sample(hidden[part], weight, bias, rows=rows[part], **options)
        assert all(torch.equal(f, w[part]) for f, w in zip(found, whole, strict=True))
    again = module.vocab_sample(hidden, weight, bias, **options)
    assert all(torch.equal(a, w) for a, w in zip(again, whole, strict=True))
    for other in ({"seed": SEED + 1}, {"step": 10}, {"rows": rows + 1}):
        changed = module.vocab_sample(hidden, weight, bias, **(options | other))
        assert not torch.equal(changed[1], whole[1])


def test_draws_do_not_depend_on_threads():
    hidden, weight, bias = problem(torch.float32, 5, 64, 20_000)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(ops.vocab_sample(hidden, weight, bias, seed=1, step=2))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", KERNELS)
def test_seeds_and_steps_as_numbers(module, backend):
    """A seed is its 64 bits, a step its low 32."""
    given = problem(torch.float32, 30, 8, 90)

    def draw(seed, step):
        return module.vocab_sample(*given, seed=seed, step=step)[1]

    assert torch.equal(draw(2**64 - 3, 5), draw(number(-3), number(5)))
    assert torch.equal(draw(2**63, 5), draw(-(2**63), 5))
    assert torch.equal(draw(7, 5), draw(number(7).view(1), 5 + 2**32))
    assert not torch.equal(draw(7, 5), draw(7 + 2**32, 5))


@pytest.mark.parametrize(("backend", "draws"), [("reference", 10**5), ("cpu", 10**6)])
def test_distribution(module, backend, draws):
    """Chi-square; words with fewer than five draws expected are taken together."""
    V, B = 111, draws // 20
    torch.manual_seed(1)
    bias = 2 * torch.randn(V)
    hidden, weight = torch.zeros(B, 1), torch.zeros(V, 1)
    counts = torch.zeros(V)
    for step in range(20):
        options = {"seed": number(7), "step": number(step), "temperature": 0.8}
        _, words = module.vocab_sample(hidden, weight, bias, **options)
        counts += torch.bincount(words, minlength=V)
    expected = draws * torch.softmax(bias.double() / 0.8, 0)
    rare = expected < 5
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts = torch.cat([counts[~rare].double(), counts[rare].sum().double()[None]])
    keep = expected > 0
    statistic = ((counts - expected) ** 2 / expected)[keep].sum().item()
    freedom = int(keep.sum()) - 1
    # The 1 - 1e-6 quantile, by Wilson and Hilferty.
    limit = freedom * (1 - 2 / (9 * freedom) + 4.7534 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit


@pytest.mark.parametrize("backend", KERNELS)
def test_opcheck(module, backend):
    hidden, weight, bias = problem(torch.float32, 3, 7, 40)
    banned = pack(torch.rand(3, 40) < 0.3)
    pick = module.kernels.vocab_pick
    torch.library.opcheck(pick, (hidden, weight, bias, 2, banned, 0.7))
    sample = module.kernels.vocab_sample
    torch.library.opcheck(sample, (hidden, weight, bias, number(1), number(2)))
    rows = torch.arange(3)
    args = (hidden, weight, None, number(1), number(2), rows, banned, 0.7)
    torch.library.opcheck(sample, args)


def test_compiled():
    """One graph, whatever the step; with the draws of eager mode."""
    hidden, weight, bias = problem(torch.float32, 6, 8, 50)

    def draw(hidden, step):
        return ops.vocab_sample(hidden, weight, bias, seed=3, step=step, temperature=1.5)[1]

    compiled = torch.compile(draw, fullgraph=True, backend="aot_eager", dynamic=True)
    for step in (number(0), number(1)):
        assert torch.equal(compiled(hidden, step), draw(hidden, step))


def test_casts():
    """float16 on the CPU, and autocast: the draws of the cast arguments."""
    given = problem(torch.float16, 20, 8, 60)
    options = {"seed": 1, "step": 2}
    expected = ops.vocab_sample(*(x.float() for x in given), **options)
    found = ops.vocab_sample(*given, **options)
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    given = problem(torch.float32, 20, 8, 60)
    expected = ops.vocab_sample(*(x.bfloat16() for x in given), **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = ops.vocab_sample(*given, **options)
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_detached():
    hidden = torch.randn(2, 3, requires_grad=True)
    found = ops.vocab_sample(hidden, torch.randn(5, 3, requires_grad=True), seed=0, step=0)
    assert not any(t.requires_grad for t in found)


def test_reference_is_differentiable_in_log_probs():
    hidden, weight, bias = (x.requires_grad_() for x in problem(torch.float64, 3, 4, 9))
    banned = pack(torch.arange(9).expand(3, 9) == 4)

    def pick(*given: Tensor) -> Tensor:
        return reference.vocab_pick(*given, k=2, banned=banned, temperature=0.7)[0]

    assert torch.autograd.gradcheck(pick, (hidden, weight, bias))
