# SPDX-License-Identifier: MIT
"""Same bits: run to run, alone and in a batch, on one thread and two. Every ISA is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seq2seq_ext import backend_info, ops
from tests.ops.cases import (
    CELLS,
    DTYPES,
    KERNELS,
    Case,
    device_of,
    forward,
    make,
    solve,
    with_dtypes,
)

ROOT = Path(__file__).parents[2]
SHAPES = [(9, 5, 7, 9), (3, 33, 65, 130)]  # (T, B, I, H)


def step(problem, rows=slice(None)):
    states = [s[0, rows] for s in problem.states]
    x, weights, cell = problem.x[0, rows], problem.weights, problem.case.cell
    if cell == "lstm":
        return ops.lstm_step(x, *states, weights)
    if cell == "gru":
        return (ops.gru_step(x, *states, weights),)
    return (ops.rnn_step(x, *states, weights, nonlinearity=cell),)


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_repeats(backend, cell, dtype, shape):
    problem = make(Case(cell, dtype, *shape, directions=2, lengths="zeros"))
    first, second = solve(backend, problem), solve(backend, problem)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads(cell, dtype, shape):
    """One thread or two: outputs and gradients have the same bits."""
    problem = make(Case(cell, dtype, *shape, directions=2, lengths="ragged"))
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            results.append(solve_and_step(problem))
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


def solve_and_step(problem):
    with torch.enable_grad():
        results = solve("cpu", problem)
    one = make(Case(problem.case.cell, problem.case.dtype, 1, problem.case.B, 65, 130))
    return results | {f"step{n}": r for n, r in enumerate(step(one))}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 70, 9, 31)], ids=str)
@pytest.mark.parametrize("proj", [0, 5])
def test_sequence_row_alone(cell, dtype, shape, proj):
    if proj and cell != "lstm":
        pytest.skip("only the LSTM projects")
    problem = make(Case(cell, dtype, *shape, directions=2, lengths="ragged", proj=proj))
    with torch.no_grad():
        together = forward("cpu", problem, problem.x, problem.states, problem.weights)
        for rows in ([0], [shape[1] - 1], [1, 2, 3]):
            part = make(problem.case)
            part.lengths = problem.lengths[rows]
            states = [s[:, rows] for s in problem.states]
            alone = forward("cpu", part, problem.x[:, rows], states, problem.weights)
            for a, b in zip(alone, together, strict=True):
                assert torch.equal(a, b[:, rows])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("B", "I", "H"), [(5, 7, 9), (33, 65, 130), (70, 500, 63)])
@pytest.mark.usefixtures("module")
def test_step_row_alone(backend, cell, dtype, B, I, H):  # noqa: E741
    problem = make(Case(cell, dtype, 1, B, I, H)).to(device_of(backend))
    with torch.no_grad():
        together = step(problem)
        for rows in (slice(0, 1), slice(B - 1, B), slice(1, 4), slice(0, 17)):
            for a, b in zip(step(problem, rows), together, strict=True):
                assert torch.equal(a, b[rows])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("score", ["dot", "additive"])
@pytest.mark.usefixtures("module")
def test_attention_row_alone(backend, dtype, score):
    """Alone, in a batch, and however much padding follows."""
    B, Q, A, S, C = 9, 31, 33, 17, 65
    query, keys, values = (torch.randn(s).to(dtype) for s in ((B, Q), (B, S, A), (B, S, C)))
    parameters = {"w_query": torch.randn(A, Q).to(dtype), "score": score}
    parameters["v"] = torch.randn(A).to(dtype) if score == "additive" else None
    lengths = torch.randint(1, S + 1, (B,))
    together = ops.attention_step(query, keys, values, lengths=lengths, **parameters)
    for b, n in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = ops.attention_step(query[row], keys[row, :n], values[row, :n], **parameters)
        assert torch.equal(alone[0][0], together[0][b])
        assert torch.equal(alone[1][0], together[1][b, :n])


@pytest.mark.parametrize(("backend", "dtype"), with_dtypes(KERNELS))
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("B", "H", "V"), [(9, 33, 301), (40, 64, 1000), (3, 500, 77)])
@pytest.mark.usefixtures("module")
def test_vocab_row_alone(backend, dtype, k, B, H, V):
    hidden, weight, bias = (torch.randn(s).to(dtype) for s in ((B, H), (V, H), (V,)))
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(ops.vocab_pick(hidden, weight, bias, k=k))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    for rows in (slice(0, 1), slice(B - 1, B), slice(0, 2)):
        alone = ops.vocab_pick(hidden[rows], weight, bias, k=k)
        assert all(torch.equal(a, b[rows]) for a, b in zip(alone, results[0], strict=True))


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, *code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


INFO = ["-c", "import torch, seq2seq_ext.ops; print(torch.ops.seq2seq_ext.cpu_isa())"]


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_isa(isa):
    """The suites of numbers again with the ISA forced, and fresh memory full of large numbers
    (glibc's MALLOC_PERTURB_), so that an element left unwritten does not go unnoticed."""
    if run_python(INFO, SEQ2SEQ_EXT_CPU_ISA=isa).stdout.strip() != isa:
        pytest.skip(f"this machine has no {isa}")
    here = Path(__file__).parent
    suites = ["test_sequence_parity.py", "test_steps.py", "test_decoding.py", "test_determinism.py"]
    command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    # A part of them: both directions with lengths, projections, wide layers; every step.
    selection = (
        "(both or projection or wide or step or attention or vocab or threads)"
        " and not reference and not cuda and not isa"
    )
    run = run_python(
        [*command, "-k", selection, *[str(here / s) for s in suites]],
        SEQ2SEQ_EXT_CPU_ISA=isa,
        SEQ2SEQ_EXT_STRICT="1",
        MALLOC_PERTURB_="1",
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


def test_unknown_isa():
    code = "import torch, seq2seq_ext.ops as o; one = torch.ones(1, 1); o.vocab_pick(one, one)"
    run = run_python(["-c", code], SEQ2SEQ_EXT_CPU_ISA="sse9")
    assert run.returncode != 0
    assert "SEQ2SEQ_EXT_CPU_ISA" in run.stderr.splitlines()[-1]
    assert "sse9" in run.stderr.splitlines()[-1]


def test_isa_is_reported():
    assert backend_info()["cpu"]["isa"] in ("baseline", "avx2", "avx512")
