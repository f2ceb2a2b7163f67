# SPDX-License-Identifier: MIT
"""Decoding again, in plain Python: one sentence at a time, lists and loops, written from the
documentation. The model's logits come from its training forward."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

NONE = -math.inf


def log_softmax(logits):
    top = max(logits)
    total = math.log(sum(math.exp(z - top) for z in logits))
    return [z - top - total for z in logits]


class Source:
    """One source (S,), unpadded, under one model; remembers what it has computed."""

    def __init__(self, model, src):
        self.model, self.src, self.known = model, src, {}
        with torch.no_grad():
            self.encoded = model.encoder(src[None], [len(src)])

    def forward(self, tokens):
        """logits and attention weights after start and tokens: lists of V and of S (or None)."""
        key = tuple(tokens)
        if key not in self.known:
            with torch.no_grad():
                out = self.model.decoder(torch.tensor([tokens]), self.encoded)
            attention = None if out.weights is None else out.weights[0, -1].tolist()
            self.known[key] = (out.logits[0, -1].tolist(), attention)
        return self.known[key]


@dataclass
class Sentence:
    """A source, and what decoding asks of it."""

    source: Source
    options: dict[str, Any]
    prefix: list[int] = field(default_factory=list)
    allowed: set[int] | None = None
    shortlist: set[int] | None = None
    row: int = 0  # what its random numbers are keyed by

    def __post_init__(self):
        self.config = self.source.model.generation_config.replace(**self.options)
        self.eos = set(self.config.eos_token_ids)
        if self.shortlist is not None:
            self.shortlist = self.shortlist | self.eos | set(self.prefix)

    def forward(self, tokens):
        return self.source.forward([self.config.start_token_id, *tokens])

    def log_probs(self, tokens):
        logits, _ = self.forward(tokens)
        if self.shortlist is None:
            return log_softmax(logits)
        ids = sorted(self.shortlist)
        found = dict(zip(ids, log_softmax([logits[v] for v in ids]), strict=True))
        return [found.get(v, NONE) for v in range(len(logits))]

    def banned(self, tokens, v):
        config, t = self.config, len(tokens)
        if t < len(self.prefix):
            return v != self.prefix[t]
        if v in (config.suppress_tokens or ()) or (v in self.eos and t < config.min_new_tokens):
            return True
        if self.allowed is not None and v not in self.allowed:
            return True
        after = [*tokens, v]
        if any(after[-len(word) :] == list(word) for word in config.bad_words_ids or ()):
            return True
        n = config.no_repeat_ngram_size
        if n and len(after) >= n:
            return any(after[i : i + n] == after[-n:] for i in range(len(after) - n))
        return False

    def scores(self, tokens):
        """Of each token: its log-probability less penalties; -inf where it is banned."""
        logits, _ = self.forward(tokens)
        out = []
        for v, log_prob in enumerate(self.log_probs(tokens)):
            score = log_prob
            if log_prob > NONE and v in tokens:
                penalty, z = self.config.repetition_penalty, logits[v]
                score += (z / penalty if z > 0 else z * penalty) - z
            out.append(NONE if self.banned(tokens, v) else score)
        return out

    def coverage(self, tokens, steps):
        """The coverage penalty after so many steps."""
        beta = self.config.coverage_penalty
        if not beta:
            return 0.0
        attention = [self.forward(tokens[:t])[1] for t in range(steps)]
        size = len(self.source.src)
        covered = [sum(step[s] for step in attention) for s in range(size)]
        return beta * sum(math.log(min(1.0, c)) for c in covered)

    def rank(self, tokens, score):
        if not tokens:
            return 0.0
        norm = len(tokens) ** self.config.length_penalty
        return score / norm + self.coverage(tokens, len(tokens))


def pick(sentence, choose):
    """Greedy decoding, or sampling; choose(scores, step) -> token."""
    tokens, log_probs = [], []
    while len(tokens) < sentence.config.max_new_tokens:
        scores = sentence.scores(tokens)
        if max(scores) == NONE:
            break
        token = choose(scores, len(tokens))
        log_probs.append(sentence.log_probs(tokens)[token])
        tokens.append(token)
        if token in sentence.eos:
            break
    return tokens, log_probs


def greedy(sentence):
    return pick(sentence, lambda scores, step: scores.index(max(scores)))


# -- Sampling --------------------------------------------------------------------------------------


def philox(seed, counter):
    """Four words, in Python's integers."""
    key, (a, b, c, d) = [seed % 2**32, seed >> 32], counter
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (
            (right >> 32) ^ b ^ key[0],
            right % 2**32,
            (left >> 32) ^ d ^ key[1],
            left % 2**32,
        )
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return a, b, c, d


def uniform(seed, row, step, token):
    call, slot = token // 32 * 8 + token % 8, token % 32 // 8
    word = philox(seed, (call, step, row % 2**32, row >> 32))[slot]
    return (word + 0.5) / 2**32


def truncated(scores, temperature, top_k, top_p, min_p):
    """{token: probability} of those that may be drawn, not normalized."""
    order = sorted((v for v, s in enumerate(scores) if s > NONE), key=lambda v: (-scores[v], v))
    order = order[: top_k or len(order)]
    top = scores[order[0]] / temperature
    mass = {v: math.exp(scores[v] / temperature - top) for v in order}
    total, before, kept = sum(mass.values()), 0.0, []
    for v in order:
        if kept and before >= top_p * total:
            break
        kept.append(v)
        before += mass[v]
    return {v: mass[v] for v in kept if mass[v] >= min_p}


def sample(sentence, number):
    config = sentence.config

    def choose(scores, step):
        mass = truncated(scores, config.temperature, config.top_k, config.top_p, config.min_p or 0)

        def noisy(v):
            u = uniform(config.seed, sentence.row + (number << 32), step, v)
            return math.log(mass[v]) - math.log(-math.log(1 - u))

        return max(sorted(mass), key=noisy)

    return pick(sentence, choose)


# -- Beam search -----------------------------------------------------------------------------------


def hypotheses(sentence):
    """Every sequence that can be decoded, best rank first: [(rank, tokens)]."""
    found, limit = [], sentence.config.max_new_tokens
    words = range(sentence.source.model.decoder.vocab_size)
    for length in range(1, limit + 1):
        for tokens in product(words, repeat=length):
            ended = [v in sentence.eos for v in tokens]
            if any(ended[:-1]) or not (ended[-1] or length == limit):
                continue
            score = 0.0
            for t in range(length):
                score += sentence.scores(list(tokens[:t]))[tokens[t]]
                if score == NONE:
                    break
            if score > NONE:
                found.append((sentence.rank(list(tokens), score), list(tokens)))
    return sorted(found, key=lambda entry: -entry[0])


class Group:
    def __init__(self):
        self.running, self.finished, self.done = [(0.0, [])], [], False

    def finish(self, entries, width):
        self.finished = sorted([*self.finished, *entries], key=lambda e: -e[0])[:width]


def beam_search(sentence):
    """[(rank, tokens)], the n best."""
    config = sentence.config
    width = config.num_beams // config.num_beam_groups
    groups = [Group() for _ in range(config.num_beam_groups)]
    for step in range(config.max_new_tokens):
        chosen: list[int] = []
        for group in groups:
            if not group.done:
                extend(sentence, group, width, step, chosen)
                chosen += [tokens[-1] for _, tokens in group.running if len(tokens) > step]
        if all(group.done for group in groups):
            break
    best = [entry for group in groups for entry in group.finished]
    return sorted(best, key=lambda e: -e[0])[: config.num_return_sequences]


def extend(sentence, group, width, step, chosen):
    config = sentence.config
    candidates = []
    for score, tokens in group.running:
        for v, own in enumerate(sentence.scores(tokens)):
            if own > NONE:
                key = score + own - config.diversity_penalty * chosen.count(v)
                candidates.append((key, score + own, [*tokens, v]))
    if not candidates:
        group.finish([(sentence.rank(t, s), t) for s, t in group.running], width)
        group.running, group.done = [], True
        return
    candidates.sort(key=lambda c: -c[0])
    ended = [c[1:] for c in candidates[:width] if c[2][-1] in sentence.eos]
    group.finish([(sentence.rank(t, s), t) for s, t in ended], width)
    running = [c[1:] for c in candidates if c[2][-1] not in sentence.eos][:width]
    if step + 1 == config.max_new_tokens:
        group.finish([(sentence.rank(t, s), t) for s, t in running], width)
        group.done = True
    group.running = running
    group.done = group.done or not running or is_done(sentence, group, width)


def is_done(sentence, group, width):
    config, length = sentence.config, len(group.running[0][1])
    if len(group.finished) < width:
        return False
    if config.early_stopping is True:
        return True
    worst = group.finished[-1][0]
    if config.early_stopping is False:
        return worst >= max(sentence.rank(t, s) for s, t in group.running)
    norms = [n**config.length_penalty for n in (length, config.max_new_tokens)]
    return worst >= max(s / norm for s, _ in group.running for norm in norms)
