# SPDX-License-Identifier: MIT
"""The linear map that decoding's once-per-sentence products go through."""

import pytest
import torch

from seq2seq_ext import backend_info

pytestmark = pytest.mark.skipif(
    not backend_info()["cpu"]["available"], reason="needs the CPU library"
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def run(*arguments):
    return torch.ops.seq2seq_ext.linear_rows(*arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (70, 33, 129), (25, 500, 65)], ids=str)
def test_against_float64(dtype, shape):
    rows, inputs, outputs = shape
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    bias = torch.randn(outputs).to(dtype)
    exact = x.double() @ weight.double().T
    # Each sum is off by its own rounding, and the result by one more.
    size = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    wide = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    slack = 8 * wide * size
    for given, want in ((bias, exact + bias.double()), (None, exact)):
        got = run(x, weight, given, False)
        assert got.dtype == dtype
        assert ((got.double() - want).abs() <= slack + torch.finfo(dtype).eps * want.abs()).all()
        got = run(x, weight, given, True)
        bound = slack + 4 * torch.finfo(dtype).eps
        assert ((got.double() - want.tanh()).abs() <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_do_not_feel_each_other_nor_threads(dtype):
    x, weight = torch.randn(61, 130).to(dtype), torch.randn(77, 130).to(dtype)
    bias = torch.randn(77).to(dtype)
    whole = run(x, weight, bias, True)
    for part in ([3], [60, 0, 31], list(range(7, 50))):
        assert torch.equal(run(x[part], weight, bias, True), whole[part])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(run(x.repeat(20, 1), weight, bias, True), whole.repeat(20, 1))
    finally:
        torch.set_num_threads(threads)


def test_layouts_and_no_rows():
    x, weight = torch.randn(6, 10)[:, ::2], torch.randn(5, 9).T[:, :5]
    torch.testing.assert_close(run(x, weight, None, False), x @ weight.T)
    assert run(x[:0], weight, None, False).shape == (0, 9)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (torch.ones(2), torch.ones(3, 2), None, "x: expected 2 dimensions"),
        (torch.ones(2, 0), torch.ones(3, 0), None, "x: expected K >= 1"),
        (torch.ones(2, 2), torch.ones(3, 4), None, "weight: expected shape"),
        (torch.ones(2, 2), torch.ones(3, 2).double(), None, "weight: expected x's dtype"),
        (torch.ones(2, 2), torch.ones(3, 2), torch.ones(2), "bias: expected shape"),
        (torch.ones(2, 2).half(), torch.ones(3, 2).half(), None, "x: expected dtype"),
    ],
)
def test_bad_arguments(x, weight, bias, message):
    with pytest.raises(ValueError, match=message):
        run(x, weight, bias, False)
