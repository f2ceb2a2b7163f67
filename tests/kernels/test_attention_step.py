# SPDX-License-Identifier: MIT
import numpy as np
import oracle
import pytest
from oracle import DTYPES, decode, encode

SIZES = (1, 7, 63, 65, 500)


def problem(rng, dtype, *, B=3, Q=65, A=63, S=65, C=63, project=True):
    """Encoded arguments by name; additive attention takes v, dot leaves it alone."""
    draws = {
        "query": rng.standard_normal((B, Q if project else A)),
        "keys": rng.standard_normal((B, S, A)),
        "values": rng.standard_normal((B, S, C)),
        "v": rng.standard_normal(A) / np.sqrt(A),
    }
    if project:
        draws["w_query"] = rng.standard_normal((A, Q)) / np.sqrt(Q)
    return {name: encode(x, dtype) for name, x in draws.items()}


def run(module, arguments, **options):
    rest = dict(arguments)
    return module(rest.pop("query"), rest.pop("keys"), rest.pop("values"), **rest, **options)


def assert_right(kernels, arguments, dtype, *, lengths=None, score="dot", scale=1.0, threads=1):
    options = {"lengths": lengths, "score": score, "scale": scale}
    found = run(kernels.attention_step, arguments, **options, threads=threads)
    exact = {name: decode(x) for name, x in arguments.items()}
    context, weights = run(oracle.attention_step, exact, **options)
    q = exact["query"]
    if "w_query" in exact:
        q = np.abs(q) @ np.abs(exact["w_query"]).T
    largest = (np.abs(q).max() + 1) * (np.nan_to_num(np.abs(exact["keys"])).max() + 1)
    score_error = oracle.EPSILON[dtype] * largest * np.sqrt(q.shape[1]) * max(scale, 1) / 2
    relative = score_error + 8 * oracle.EPSILON[dtype] + oracle.ROUNDING[dtype]
    smallest = max(1e-30, oracle.UNDERFLOW[dtype])
    np.testing.assert_allclose(decode(found[1]), weights, rtol=relative, atol=smallest)
    magnitude = np.nan_to_num(np.abs(exact["values"])).max()
    np.testing.assert_allclose(decode(found[0]), context, rtol=0, atol=relative * magnitude)
    return found


@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(kernels, rng, dtype, score, size):
    """Each of Q, A, S and C at each size, the others small and odd; with and without projection."""
    for name in ("Q", "A", "S", "C"):
        sizes = {"Q": 9, "A": 5, "S": 6, "C": 11, name: size}
        assert_right(kernels, problem(rng, dtype, **sizes), dtype, score=score, scale=0.25)
    assert_right(
        kernels, problem(rng, dtype, A=size, project=False), dtype, score=score, scale=0.25
    )


@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_is_never_read(kernels, rng, dtype, score):
    """Keys and values past a row's length are NaN; one row has nothing else."""
    arguments = problem(rng, dtype, B=7, S=530)
    lengths = np.array([0, 1, 7, 255, 256, 257, 530])
    for name in ("keys", "values"):
        x = decode(arguments[name])
        for b, n in enumerate(lengths):
            x[b, n:] = np.nan
        arguments[name] = encode(x, dtype)
    context, weights = assert_right(
        kernels, arguments, dtype, lengths=lengths, score=score, scale=0.2, threads=2
    )
    assert not decode(context)[0].any()
    for b, n in enumerate(lengths):
        assert not decode(weights)[b, n:].any()


@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_depend_on_batch_threads_or_padding(kernels, rng, dtype, score):
    arguments = problem(rng, dtype, B=11, Q=70, A=130, S=600, C=200)
    lengths = np.array([600, 1, 0, 300, 256, 599, 17, 512, 64, 65, 63])
    options = {"score": score, "scale": 0.3}
    context, weights = run(kernels.attention_step, arguments, lengths=lengths, **options)
    for threads in oracle.thread_counts(kernels):
        for rows in (slice(0, 11), slice(3, 4), slice(5, 11)):
            n = int(lengths[rows].max())  # a shorter padded length, too
            part = dict(arguments, query=arguments["query"][rows])
            part["keys"], part["values"] = (
                arguments["keys"][rows, :n],
                arguments["values"][rows, :n],
            )
            found = run(
                kernels.attention_step, part, lengths=lengths[rows], threads=threads, **options
            )
            assert found[0].tobytes() == context[rows].tobytes()
            assert found[1].tobytes() == weights[rows, :n].tobytes()


def test_strided_keys_and_values(kernels, rng):
    """(S, B, A) memory seen as (B, S, A), and a slice of wider rows."""
    arguments = problem(rng, "float32", B=3, S=9, A=8, C=8, Q=8)
    wide = encode(rng.standard_normal((9, 3, 20)), "float32").transpose(1, 0, 2)
    arguments["keys"], arguments["values"] = wide[:, :, 2:10], wide[:, :, 11:19]
    found = run(kernels.attention_step, arguments, scale=0.5)
    for name in ("keys", "values"):
        arguments[name] = arguments[name].copy()
    dense = run(kernels.attention_step, arguments, scale=0.5)
    assert found[0].tobytes() == dense[0].tobytes()
    assert found[1].tobytes() == dense[1].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores(kernels, rng, dtype):
    """Scores far outside the range of exp: the weights are those of the largest."""
    arguments = problem(rng, dtype, B=2, A=4, S=300, C=3, project=False)
    _, weights = run(kernels.attention_step, arguments, scale=1e6)
    _, expected = run(
        oracle.attention_step,
        {n: decode(x) for n, x in arguments.items()},
        scale=1e6,
        score="dot",
        lengths=None,
    )
    np.testing.assert_allclose(decode(weights), expected, atol=1e-6)


def test_nan_stays_in_its_row(kernels, rng):
    arguments = problem(rng, "float32", B=3, S=300)
    clean = run(kernels.attention_step, arguments)
    arguments["keys"][1, 270, 3] = np.nan
    context, weights = run(kernels.attention_step, arguments)
    assert np.isnan(weights[1]).all()
    assert np.isnan(context[1]).all()
    for b in (0, 2):
        assert context[b].tobytes() == clean[0][b].tobytes()
        assert weights[b].tobytes() == clean[1][b].tobytes()


def test_minus_infinity_masks_a_position(kernels):
    """A score of -inf is weight zero; a row of nothing else has no softmax."""
    keys = np.zeros((2, 4, 1), np.float32)
    keys[0, 1] = keys[1, :] = -np.inf
    values = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    context, weights = kernels.attention_step(np.ones((2, 1), np.float32), keys, values)
    np.testing.assert_allclose(weights[0], [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(context[0], [5 / 3], rtol=1e-6)
    assert np.isnan(weights[1]).all()


def test_empty(kernels):
    zeros = [np.zeros(shape, np.float32) for shape in ((0, 3), (0, 4, 3), (0, 4, 2))]
    context, weights = kernels.attention_step(*zeros)
    assert (context.shape, weights.shape) == ((0, 2), (0, 4))
    zeros = [np.zeros(shape, np.float32) for shape in ((2, 3), (2, 0, 3), (2, 0, 2))]
    context, weights = kernels.attention_step(*zeros)
    assert (context == 0).all()
    assert weights.shape == (2, 0)


def test_query_must_fit(kernels):
    zeros = [np.zeros(shape, np.float32) for shape in ((1, 3), (1, 4, 5), (1, 4, 2))]
    with pytest.raises(ValueError, match="without w_query expected Q = A = 5, got Q = 3"):
        kernels.attention_step(*zeros)
