# SPDX-License-Identifier: MIT
"""exp, sigmoid and tanh against the errors that csrc/kernels/cpu/math.h states."""

import numpy as np
import pytest

FUNCTIONS = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
STATED_ULP = {"exp": 2.0, "sigmoid": 3.0, "tanh": 3.0}
# float32 is judged by float64, float64 by x87's 64 bits of mantissa.
WIDER = {np.float32: np.float64, np.float64: np.longdouble}


def sweep(dtype):
    """Finite values over the whole range, every exponent and sign, and densely where it matters."""
    integer, steps = (np.uint32, 2**21 - 1) if dtype is np.float32 else (np.uint64, 2**20 - 1)
    top = np.iinfo(integer).max
    bits = np.linspace(0, 1, steps, dtype=np.longdouble) * np.longdouble(top)
    everywhere = bits.astype(integer).view(dtype)
    edge = 100 if dtype is np.float32 else 760
    dense = np.concatenate([np.linspace(-r, r, 400_001, dtype=dtype) for r in (0.01, 1, 12, edge)])
    values = np.concatenate([everywhere, dense])
    return values[np.isfinite(values)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_in_ulp(cpu_kernels, function, dtype):
    wider = WIDER[dtype]
    if np.finfo(wider).nmant <= np.finfo(dtype).nmant + 8:
        pytest.skip("no wider type to judge by")
    x = sweep(dtype)
    tiny = np.finfo(dtype).tiny
    with np.errstate(over="ignore", under="ignore"):
        exact = FUNCTIONS[function](x.astype(wider))
        overflows = np.exp(-x.astype(wider)) > np.finfo(dtype).max
    found = cpu_kernels.evaluate(function, x).astype(wider)
    counts = (np.abs(exact) >= tiny) & (np.abs(exact) <= np.finfo(dtype).max)
    if function == "sigmoid":
        counts &= ~overflows
    ulp = np.spacing(np.abs(exact[counts]).astype(dtype)).astype(wider)
    error = np.abs(found[counts] - exact[counts]) / ulp
    worst = error.argmax()
    assert error[worst] <= STATED_ULP[function], f"at x = {x[counts][worst]!r}"
    # Where the result is not normal, it is 0 or about the smallest normal number.
    rest = ~counts & (np.abs(exact) < tiny)
    assert (np.abs(found[rest] - exact[rest]) <= 1.001 * tiny).all()
    assert counts.sum() > 500_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(cpu_kernels, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([inf, -inf, nan, 0.0, -0.0, 1e30, -1e30], dtype)
    np.testing.assert_array_equal(cpu_kernels.evaluate("exp", x), [inf, 0, nan, 1, 1, inf, 0])
    sigmoid = cpu_kernels.evaluate("sigmoid", x)
    np.testing.assert_allclose(sigmoid, [1, 0, nan, 0.5, 0.5, 1, 0], atol=np.finfo(dtype).tiny * 2)
    tanh = cpu_kernels.evaluate("tanh", x)
    np.testing.assert_array_equal(tanh, [1, -1, nan, 0, 0, 1, -1])
    np.testing.assert_array_equal(np.signbit(tanh[3:5]), [False, True])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lane_does_not_matter(cpu_kernels, rng, function):
    x = rng.standard_normal(37).astype(np.float32) * 5
    whole = cpu_kernels.evaluate(function, x)
    for i in range(37):
        assert cpu_kernels.evaluate(function, x[i : i + 1]).tobytes() == whole[i : i + 1].tobytes()
