# SPDX-License-Identifier: MIT
"""Whole-sequence decoding as a loop over the module's own steps, one source at a time: what
`decode_sequences` does at once, to the bit."""

import math

import numpy as np
from oracle import decode, encode, state

GREEDY, SAMPLE, BEAM, GIVEN = range(4)
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def make_model(
    rng,
    dtype,
    *,
    cell="lstm",
    H=5,
    V=95,
    L=1,
    E=4,
    C=6,
    A=7,
    context="initial_state",
    score="dot",
    project=False,
    input_feeding=False,
    biases=True,
    tokens=None,
):
    """A dict for decode_sequences. Weights are large, so that no decoding gets stuck at a word."""

    def array(*shape, scale=1.0):
        return encode(rng.standard_normal(shape) * scale, dtype)

    num_tokens = V if tokens is None else int(tokens[-1]) + 3
    extra = (C if context == "every_step" else 0) + (H if input_feeding else 0)
    layers = []
    for layer in range(L):
        inputs, G = (E + extra if layer == 0 else H), GATES[cell] * H
        bias = [array(G, scale=0.3) if biases else None for _ in range(2)]
        layers.append(
            (array(G, inputs, scale=2 / inputs**0.5), array(G, H, scale=1 / H**0.5), *bias)
        )
    model = {
        "cell": cell,
        "context": context,
        "input_feeding": input_feeding,
        "embedding": array(num_tokens, E),
        "layers": layers,
        "output_weight": array(V, H, scale=3 / H**0.5),
        "output_bias": array(V, scale=0.3) if biases else None,
    }
    if tokens is not None:
        model["tokens"] = np.asarray(tokens)
    if context == "every_step":
        model["C"] = C
    if context == "attention":
        additive = score == "additive"
        size = A if project or additive else H
        model |= {
            "score": score,
            "scale": 0.7,
            "w_query": array(size, H) if project or additive else None,
            "v": array(size) if additive else None,
            "combine_ih": array(H, C, scale=1 / C**0.5),
            "combine_hh": array(H, H, scale=1 / H**0.5),
        }
    return model


def make_sources(rng, model, dtype, B, S=5):
    H, L = model["output_weight"].shape[1], len(model["layers"])

    def array(*shape):
        return encode(rng.standard_normal(shape), dtype)

    sources = {"hidden": [array(B, H) for _ in range(L)]}
    if model["cell"] == "lstm":
        sources["cells"] = [state(rng.standard_normal((B, H)), dtype) for _ in range(L)]
    if model["context"] == "every_step":
        sources["context"] = array(B, model["C"])
    if model["context"] == "attention":
        w_query = model["w_query"]
        A = H if w_query is None else len(w_query)
        sources["keys"] = array(B, S, A)
        sources["values"] = array(B, S, model["combine_ih"].shape[1])
        sources["lengths"] = rng.integers(0, S, B, endpoint=True)
    return sources


def part_of(sources, rows):
    """Some of the sources alone."""
    cut = {}
    for name, value in sources.items():
        cut[name] = [v[rows].copy() for v in value] if isinstance(value, list) else value[rows]
    return cut


class Loop:
    """Decodes by steps; `options` are those of decode_sequences."""

    def __init__(self, kernels, model, sources, **options):
        self.kernels, self.model, self.sources, self.options = kernels, model, sources, options
        self.B = len(sources["hidden"][0])
        self.S = sources["keys"].shape[1] if "keys" in sources else 0
        self.V = len(model["output_weight"])
        self.panels = model.get("panels", False)
        self.K = options.get("slots", 1)
        self.mode = options.get("mode", GREEDY)
        self.tokens = model.get("tokens", np.arange(self.V))
        told = {k: v for k, v in options.items() if k not in ("start_token", "attentions")}
        lengths = sources.get("lengths", np.full(self.B, self.S))
        self.strategy = kernels.Strategy(self.V, lengths, self.S, **told)
        self.constraints = kernels.Constraints(self.B, self.V, model.get("tokens"), **told)
        self.undefined = []

    def run(self):
        """lengths, tokens, log_probs, ranks, attentions of each result, unpadded."""
        return [row for b in range(self.B) for row in self._source(b)]

    def _source(self, b):
        K = self.K
        *_, live = self.strategy.begin(b)
        hidden = [np.repeat(h[b : b + 1], K, 0) for h in self.sources["hidden"]]
        cells = [np.repeat(c[b : b + 1], K, 0) for c in self.sources.get("cells", [])]
        feed = np.zeros_like(hidden[0])
        last = np.full(K, self.options.get("start_token", 0))
        histories, choices, weights = [[] for _ in range(K)], [], []
        while any(live):
            step = len(choices)
            features, attention = self._step(b, last, hidden, cells, feed)
            rows = [
                self._candidates(b, k, step, features[k : k + 1], histories[k]) if live[k] else None
                for k in range(K)
            ]
            bad = [k for k in range(K) if rows[k] is not None and not rows[k].get("finite", True)]
            if bad:
                self.undefined.append((b, step))
            covered = self.options.get("coverage_penalty", 0) != 0
            chosen = self.strategy.advance(b, step, rows, decode(attention) if covered else None)
            tokens, parents, _, live = chosen
            choices.append(chosen)
            weights.append(attention)
            hidden[:] = [h[parents] for h in hidden]
            cells[:] = [c[parents] for c in cells]
            feed, last = features[parents], np.array(tokens)
            histories = [[*histories[p], t] for p, t in zip(parents, tokens, strict=True)]
        return [self._follow(choices, weights, *found) for found in self.strategy.finish(b)]

    def _step(self, b, tokens, hidden, cells, feed):
        model, K = self.model, len(tokens)
        x = [model["embedding"][tokens]]
        if model["context"] == "every_step":
            x.append(np.repeat(self.sources["context"][b : b + 1], K, 0))
        if model["input_feeding"]:
            x.append(feed)
        x = np.ascontiguousarray(np.concatenate(x, 1))
        for layer, w in enumerate(model["layers"]):
            c = cells[layer] if cells else None
            h, c = self._cell(model["cell"], x, hidden[layer], w, c)
            hidden[layer] = x = h
            if cells:
                cells[layer] = c
        if model["context"] != "attention":
            return x, np.zeros((K, 0))
        keys, values = (np.repeat(self.sources[n][b : b + 1], K, 0) for n in ("keys", "values"))
        context, attention = self.kernels.attention_step(
            x,
            keys,
            values,
            lengths=np.repeat(self.sources["lengths"][b : b + 1], K),
            score=model["score"],
            scale=model["scale"],
            w_query=model["w_query"],
            v=model["v"],
        )
        combine = (model["combine_ih"], model["combine_hh"], None, None)
        return self._cell("rnn_tanh", context, x, combine)[0], attention

    def _cell(self, cell, x, h, weights, c=None):
        """h and c. From panels a step is a sequence of length one."""
        if not self.panels:
            return self.kernels.step(cell, x, h, (*weights, None), c=c)[:2]
        c = None if c is None else c[None]
        found = self.kernels.sequence_forward(cell, x[None], h[None], [(*weights, None)], c0=c)
        return found["h_n"][0], None if c is None else found["c_n"][0]

    def _candidates(self, b, slot, step, features, history):
        output = features, self.model["output_weight"], self.model["output_bias"]
        found = self.kernels.vocab_pick(*output, k=self.V, panels=self.panels)
        log_probs, words = (x[0] for x in found)
        if np.isnan(log_probs).any():
            return {"tokens": [], "scores": [], "log_probs": [], "finite": False}
        if self.mode == GIVEN:
            given = self.options["given"][b][step]
            found = self.tokens[words] == given
            told = float(log_probs[found][0]) if found.any() else -math.inf
            return {"tokens": [given], "scores": [told], "log_probs": [told]}
        banned, also, seen, forced = self.constraints.row(b, step, np.array(history, np.int64))
        log_probs = log_probs.astype(np.float64)
        scores = log_probs.copy()
        if seen:
            scores = self._penalized(output, words, scores, seen)
        banned[also] = True
        if forced >= 0:
            banned = np.arange(self.V) != forced
        if banned.all():
            return {"tokens": [], "scores": [], "log_probs": []}
        if self._draws():
            return self._drawn(b, slot, step, output, banned, log_probs[np.argsort(words)])
        order = np.lexsort((words, -scores))
        order = order[~banned[words[order]] & (scores[order] > -math.inf)]
        return {
            "tokens": self.tokens[words[order]],
            "scores": scores[order],
            "log_probs": log_probs[order],
        }

    def _penalized(self, output, words, scores, seen):
        """Good to rounding only: which is why tests of it are in float64."""
        z = np.concatenate([decode(output[0])[0] @ decode(output[1]).T])
        z += 0 if output[2] is None else decode(output[2])
        normalizer = z.max() + np.log(np.exp(z - z.max()).sum())
        penalty = self.options["repetition_penalty"]
        penalized = np.where(z > 0, z / penalty, z * penalty) - normalizer
        return np.where(np.isin(words, seen), penalized[words], scores)

    def _draws(self):
        o = self.options
        whole = o.get("top_p", 1) >= 1 and o.get("min_p", 0) == 0 and o.get("top_k", 0) == 0
        return self.mode == SAMPLE and whole and "tokens" not in self.model

    def _drawn(self, b, slot, step, output, banned, log_probs):
        bits = np.zeros(-(-self.V // 32) * 32, bool)
        bits[: self.V] = banned
        packed = np.packbits(bits, bitorder="little").view(np.int32)[None]
        row = int(self.options.get("row_ids", np.arange(self.B))[b]) + (slot << 32)
        _, [word] = self.kernels.vocab_sample(
            *output,
            seed=self.options["seed"],
            step=step,
            rows=np.array([row]),
            banned=packed,
            temperature=self.options.get("temperature", 1.0),
            panels=self.panels,
        )
        log_prob = [float(log_probs[word])]
        return {"tokens": [word], "scores": log_prob, "log_probs": log_prob, "drawn": True}

    def _follow(self, choices, weights, length, slot, token, log_prob, rank):
        tokens, log_probs, attentions = [], [], []
        for t in reversed(range(length)):
            if self.mode == BEAM and t == length - 1:
                tokens.append(token)
                log_probs.append(log_prob)
            else:
                tokens.append(choices[t][0][slot])
                log_probs.append(choices[t][2][slot])
                slot = choices[t][1][slot]
            attentions.append(decode(weights[t])[slot])
        return tokens[::-1], log_probs[::-1], attentions[::-1], rank


def assert_same(found, loop, *, exact=True):
    """What decode_sequences found, and what the loop does."""
    rows = loop.run()
    assert len(found["lengths"]) == len(rows)
    assert found["tokens"].shape[1] == max((len(row[0]) for row in rows), default=0)
    for r, (tokens, log_probs, attentions, rank) in enumerate(rows):
        length = found["lengths"][r]
        assert found["tokens"][r, :length].tolist() == list(tokens)
        if exact:
            assert found["log_probs"][r, :length].tolist() == list(log_probs)
        else:
            np.testing.assert_allclose(found["log_probs"][r, :length], log_probs, atol=1e-11)
        assert not found["log_probs"][r, length:].any()
        if loop.mode == BEAM:
            assert found["ranks"][r] == rank if exact else abs(found["ranks"][r] - rank) < 1e-9
        if "attentions" in found:
            expected = np.zeros(found["attentions"].shape[1:])
            if length:
                expected[:length] = attentions
            np.testing.assert_array_equal(found["attentions"][r], expected)
    assert found["undefined"] == min(loop.undefined, default=(-1, -1))


def assert_bits(found, expected):
    """Two calls of decode_sequences that have to give the same."""
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if name == "tokens":
            past = np.arange(value.shape[1]) >= found["lengths"][:, None]
            assert (np.where(past, 0, value) == np.where(past, 0, expected[name])).all()
        elif name == "undefined":
            assert value == expected[name]
        else:
            assert value.tobytes() == expected[name].tobytes()


def check(kernels, model, sources, *, threads=1, exact=True, **options):
    found = kernels.decode_sequences(model, sources, threads=threads, **options)
    assert_same(found, Loop(kernels, model, sources, **options), exact=exact)
    return found
