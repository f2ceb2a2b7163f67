# SPDX-License-Identifier: MIT
"""The kernels' equations in float64 NumPy, and conversions to and from what the modules take."""

import numpy as np

DTYPES = ("float32", "float64", "bfloat16", "float16")  # float16: CUDA kernels only (conftest.py)
# Relative spacing of the values a kernel computes with; 16-bit inputs are exact in float32.
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52, "bfloat16": 2.0**-23, "float16": 2.0**-23}
# Half the relative spacing of the values it stores.
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}
# Half the spacing of the smallest values it stores, where the relative spacing grows.
UNDERFLOW = {"float32": 0.0, "float64": 0.0, "bfloat16": 0.0, "float16": 2.0**-25}


def thread_counts(kernels) -> tuple[int, ...]:
    """Numbers of threads to try: the CUDA kernels do not ask for one."""
    return (1, 2, 3) if hasattr(kernels, "chunks") else (1,)


def encode(x, dtype: str):
    """`x` rounded to `dtype` (nearest even), as the modules take it (bfloat16: its bits)."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(x, dtype=dtype)
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def decode(x):
    """The values of an array as the modules return it, in float64."""
    if x.dtype == np.uint16:
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float64)


def state(x, dtype: str):
    """`x` in the dtype of cell states and log-probabilities."""
    return np.ascontiguousarray(x, dtype="float64" if dtype == "float64" else "float32")


def lengths_or_full(lengths, count: int, longest: int):
    return np.full(count, longest) if lengths is None else lengths


def vocab_pick(hidden, weight, bias=None, *, k=1):
    """float64 arrays -> log_probs (B, k), indices (B, k), the (B, V) log-probabilities."""
    logits = hidden @ weight.T + (0.0 if bias is None else bias)
    log_probs = np.full(logits.shape, np.nan)
    for row, x in zip(log_probs, logits, strict=True):
        if not np.isnan(x).any() and np.isfinite(x.max()):
            row[:] = x - x.max() - np.log(np.exp(x - x.max()).sum())
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]  # NaN rows keep 0, 1, ...
    return np.take_along_axis(log_probs, order, 1), order, log_probs


def attention_step(query, keys, values, *, lengths, score, scale=1.0, w_query=None, v=None):
    B, S, _ = keys.shape
    q = query if w_query is None else query @ w_query.T
    weights, context = np.zeros((B, S)), np.zeros((B, values.shape[2]))
    for b, n in enumerate(lengths_or_full(lengths, B, S)):
        if n == 0:
            continue
        scores = scale * (keys[b, :n] @ q[b]) if score == "dot" else np.tanh(q[b] + keys[b, :n]) @ v
        e = np.exp(scores - scores.max())
        weights[b, :n] = e / e.sum()
        context[b] = weights[b, :n] @ values[b, :n]
    return context, weights


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, x, h, c, weights):
    """One step of one direction -> h, c (c is None but for the LSTM)."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    a = x @ w_ih.T + (0 if b_ih is None else b_ih)
    r = h @ w_hh.T + (0 if b_hh is None else b_hh)
    if cell == "lstm":
        i, f, g, o = np.split(a + r, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (h if w_hr is None else h @ w_hr.T), c
    if cell == "gru":
        (a_r, a_z, a_n), (r_r, r_z, r_n) = np.split(a, 3, axis=-1), np.split(r, 3, axis=-1)
        z = sigmoid(a_z + r_z)
        n = np.tanh(a_n + sigmoid(a_r + r_r) * r_n)
        return (1 - z) * n + z * h, None
    return (np.tanh(a + r) if cell == "rnn_tanh" else np.maximum(a + r, 0)), None


def sequence(cell, x, h0, weights, *, c0=None, lengths=None, reverse=(False,)):
    """x (T, B, I), h0 (D, B, P), c0 (D, B, H), one weight tuple a direction -> y, h_n, c_n."""
    T, B, _ = x.shape
    P = h0.shape[2]
    y = np.zeros((T, B, len(weights) * P))
    h_n, c_n = h0.copy(), None if c0 is None else c0.copy()
    for d, w in enumerate(weights):
        for b, n in enumerate(lengths_or_full(lengths, B, T)):
            h, c = h0[d, b], None if c0 is None else c0[d, b]
            for t in reversed(range(n)) if reverse[d] else range(n):
                h, c = step(cell, x[t, b], h, c, w)
                y[t, b, d * P : (d + 1) * P] = h
            h_n[d, b] = h
            if c_n is not None:
                c_n[d, b] = c
    return y, h_n, c_n
