# SPDX-License-Identifier: MIT
"""Random numbers, and whether what is drawn has the distribution it should have."""

import math

import pytest
import torch

from seq2seq_ext import ops
from seq2seq_ext.generation import exact, philox, processors

from . import oracle
from .models import make

DRAWS = 1_000_000


def test_philox_gives_the_known_answers():
    """The three vectors that its authors publish for philox4x32-10."""
    zero = torch.zeros(1, dtype=torch.int64)
    ones = zero + 0xFFFFFFFF
    pi = [zero + word for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    for seed, counter, expected in (
        (0, [zero] * 4, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, [ones] * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (0x299F31D0A4093822, pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ):
        key = [zero + word for word in (seed % 2**32, seed >> 32)]
        assert tuple(int(word) for word in philox.philox(key, counter)) == expected


def test_numbers_are_keyed_by_seed_row_step_and_token():
    rows, tokens = torch.tensor([7, (3 << 32) + 7]), torch.tensor([[0, 5, 31999], [8, 25, 50]])
    found = philox.uniform(2**63 + 11, rows, 4, tokens)
    for i, row in enumerate(rows.tolist()):
        for j, token in enumerate(tokens[i].tolist()):
            assert float(found[i, j]) == oracle.uniform(2**63 + 11, row, 4, token)
    base = philox.uniform(1, rows[:1], 4, tokens[:1])
    assert not (base == philox.uniform(2, rows[:1], 4, tokens[:1])).any()
    assert not (base == philox.uniform(1, rows[1:], 4, tokens[:1])).any()
    assert not (base == philox.uniform(1, rows[:1], 5, tokens[:1])).any()


def test_exp_and_log_are_right_to_the_last_bits():
    x = torch.cat([torch.linspace(-745, 0, 20001), -(torch.rand(20000) ** 8)]).double()
    normal = x > -708
    error = (exact.exp(x) - x.exp()).abs()[normal] / x.exp()[normal]
    assert error.max() < 4e-16
    assert exact.exp(x)[~normal].max() < 1e-306
    u = torch.cat([torch.rand(20000).double(), 1 - 1e-9 * torch.rand(99).double()])
    u = torch.cat(
        [u, torch.rand(99).double() * 1e-300, torch.tensor([5e-324, 1e300], dtype=torch.float64)]
    )
    assert ((exact.log(u) - u.log()).abs() / u.log().abs()).max() < 6e-16
    special = torch.tensor([0.0, 1.0, math.inf, math.nan]).double()
    assert torch.equal(exact.log(special).nan_to_num(9), special.log().nan_to_num(9))
    special = torch.tensor([-math.inf, 0.0, -1e9, math.nan]).double()
    assert torch.equal(exact.exp(special).nan_to_num(9), special.exp().nan_to_num(9))


def test_noise_is_that_of_the_kernels():
    """`ops.vocab_sample` draws the same words."""
    hidden, weight, bias = (
        torch.randn(300, 8).double(),
        torch.randn(70, 8).double(),
        torch.randn(70),
    )
    rows = torch.randint(0, 2**62, (300,))
    seed, step = torch.tensor(2**40 + 3), torch.tensor(17)
    drawn = ops.vocab_sample(hidden, weight, bias.double(), seed=seed, step=step, rows=rows)[1]
    tokens = torch.arange(70).expand(300, -1)
    keys = hidden @ weight.T + bias + philox.gumbel(int(seed), rows, int(step), tokens)
    assert torch.equal(processors.pick_largest(keys, tokens).flatten(), drawn.flatten())


def exp_by_hand(x):
    k = round(max(x, -745.0) / math.log(2))
    r = (max(x, -745.0) - k * exact._LN2_HIGH) - k * exact._LN2_LOW
    y = 1.0
    for n in range(14, 0, -1):
        y = y * r / n + 1
    return math.ldexp(y, k) if k >= -1022 else 0.0


def log_by_hand(x):
    m, k = math.frexp(x)
    if m < math.sqrt(0.5):
        m, k = 2 * m, k - 1
    r = (m - 1) / (m + 1)
    y = 0.0
    for n in range(12, -1, -1):
        y = y * (r * r) + 1 / (2 * n + 1)
    return k * exact._LN2_HIGH + (2 * r * y + k * exact._LN2_LOW)


def test_exp_and_log_have_the_bits_that_arithmetic_gives_them():
    x = -torch.rand(1003).double() * 700
    assert exact.exp(x).tolist() == [exp_by_hand(v) for v in x.tolist()]
    assert exact.log(-x).tolist() == [log_by_hand(v) for v in (-x).tolist()]
    assert exact.log(-x / 700).tolist() == [log_by_hand(v) for v in (-x / 700).tolist()]


def chi_square_limit(freedom):
    """The quantile that one in 10**7 exceeds (Wilson and Hilferty's approximation)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + 5.1993 * math.sqrt(part)) ** 3


def fits(counts, probabilities):
    expected = probabilities * counts.sum()
    assert (expected[expected > 0] >= 5).all()
    assert not counts[expected == 0].any()
    inside = expected > 0
    statistic = float(((counts - expected)[inside] ** 2 / expected[inside]).sum())
    return statistic < chi_square_limit(max(int(inside.sum()) - 1, 1))


SAMPLERS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.5},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"temperature": 1.5, "top_k": 7, "top_p": 0.9, "min_p": 0.05},
]


@pytest.fixture(scope="module")
def noise():
    """(DRAWS, 8), of token ids 0 ... 7: over rows, and over steps."""
    rows, tokens = torch.arange(DRAWS // 8), torch.arange(8).expand(DRAWS // 8, -1)
    return torch.cat([philox.gumbel(3, rows, step, tokens) for step in range(8)])


@pytest.mark.parametrize("options", SAMPLERS, ids=str)
def test_draws_have_the_distribution(options, noise):
    options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **options}
    logits = torch.tensor([0.3, -2.0, 1.1, -math.inf, 0.3, -0.9, 2.0, -1.4]).double()
    scores, tokens = logits.log_softmax(0).sort(descending=True, stable=True)
    mass = oracle.truncated(logits.tolist(), **options)
    expected = torch.tensor([mass.get(v, 0.0) for v in range(8)]).double()
    expected /= expected.sum()
    temperature = options.pop("temperature")
    kept = processors.truncate(scores[None] / temperature, **options)
    drawn = processors.pick_largest(kept + noise[:, tokens], tokens.expand(DRAWS, -1))
    counts = tokens[drawn[:, 0]].bincount(minlength=8).double()
    assert fits(counts, expected)
    # And the test would see a distribution that is three percent off in one token.
    wrong = expected.clone()
    wrong[6] *= 1.03
    assert not fits(counts, wrong / wrong.sum())


@pytest.mark.parametrize("weights", [None, torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_draws_of_the_native_loop_have_the_distribution(weights, loop):
    """2**16 samples of each of 16 rows, of one step, of the same source."""
    if loop != "native":
        pytest.skip("about the loop in C++")
    model = make(vocab=11, hidden_size=8, embedding_size=4, context="initial_state")
    model.prepare_for_decoding(weights)
    src, lengths = torch.full((16, 1), 5), torch.ones(16, dtype=torch.int64)
    common = {"max_new_tokens": 1, "return_dict_in_generate": True}
    told = model.generate(src[:1], lengths[:1], output_scores=True, **common).scores[0, 0]
    # What is not about the dtype is seen in float32.
    for options in SAMPLERS if weights is None else SAMPLERS[3::3]:
        options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **options}
        mass = oracle.truncated(told.tolist(), **options)
        expected = torch.tensor([mass.get(v, 0.0) for v in range(11)]).double()
        expected /= expected.sum()
        draws = {"do_sample": True, "seed": 9, "num_return_sequences": 2**16}
        found = model.generate(src, lengths, **draws, **options, **common)
        counts = found.sequences.flatten().bincount(minlength=11).double()
        assert counts.sum() >= DRAWS
        assert fits(counts, expected), options
        wrong = expected.clone()
        wrong[int(wrong.argmax())] *= 1.03
        assert not fits(counts, wrong / wrong.sum()), options


def test_rows_steps_and_samples_are_independent():
    """Pairs of neighbouring draws fall evenly into the cells of a square."""
    rows = torch.arange(200_000)
    token = torch.zeros(len(rows), 1, dtype=torch.int64)
    first = philox.uniform(5, rows, 0, token)[:, 0]
    for other in (
        philox.uniform(5, rows, 1, token),
        philox.uniform(5, rows + 1, 0, token),
        philox.uniform(5, rows + (1 << 32), 0, token),
        philox.uniform(5, rows, 0, token + 1),
        philox.uniform(6, rows, 0, token),
    ):
        cells = (first * 8).long() * 8 + (other[:, 0] * 8).long()
        assert fits(cells.bincount(minlength=64).double(), torch.full((64,), 1 / 64).double())
