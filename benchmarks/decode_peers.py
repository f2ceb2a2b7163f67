# SPDX-License-Identifier: MIT
"""The model of bench_decode on torch.nn, and decoding with it as a careful user would write it.

Legend: B sources, K beams of each, R = B * K rows, S positions, E = H sizes, V words, N new tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from seq2seq_ext.nn import Seq2Seq

State = tuple[Tensor, Tensor, Tensor]  # h, c, the last attentional vector: (R, H) each
Memory = tuple[Tensor, Tensor]  # keys and values (B, S, H)
# tokens (R,), state, memory -> the next tokens and the next state.
Pick = Callable[[Tensor, State, Memory], tuple[Tensor, State]]
# tokens (R,), scores (B, K), state, memory -> tokens (R,), scores, parents' rows (R,), state.
Extend = Callable[[Tensor, Tensor, State, Memory], tuple[Tensor, Tensor, Tensor, State]]


class TorchModel(nn.Module):
    """`model` of one LSTM layer, general attention, input feeding and bridge "copy", in torch.nn's
    modules; the tensors are the same, no copies."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        decoder, hidden = model.decoder, model.decoder.hidden_size
        assert decoder.attention is not None
        assert decoder.attention.key is not None
        assert decoder.output is not None
        size = decoder.embedding.embedding_dim
        self.source = nn.Embedding(model.encoder.vocab_size, size, device="meta")
        self.encoder = nn.LSTM(size, hidden, batch_first=True, device="meta")
        self.embedding = nn.Embedding(decoder.vocab_size, size, device="meta")
        self.cell = nn.LSTMCell(size + hidden, hidden, device="meta")
        self.key = nn.Linear(hidden, hidden, bias=False, device="meta")
        self.combine = nn.Linear(2 * hidden, hidden, bias=False, device="meta")
        self.output = nn.Linear(hidden, decoder.vocab_size, device="meta")
        theirs = {
            "source": model.encoder.embedding,
            "encoder": model.encoder.rnn,
            "embedding": decoder.embedding,
            "key": decoder.attention.key,
            "output": decoder.output,
        }
        weights = {
            f"{part}.{name}": value.detach()
            for part, module in theirs.items()
            for name, value in module.state_dict().items()
        }
        for name, value in decoder.rnn.state_dict().items():
            weights[f"cell.{name.removesuffix('_l0')}"] = value.detach()
        mixing = (decoder.combine.weight_ih, decoder.combine.weight_hh)
        weights["combine.weight"] = torch.cat([w.detach() for w in mixing], dim=1)
        self.load_state_dict(weights, assign=True)
        self.requires_grad_(False).eval()

    def start(self, src: Tensor, beams: int = 1) -> tuple[State, Memory]:
        """src: (B, S), no padding."""
        values, (h, c) = self.encoder(self.source(src))
        h, c = (x[0].repeat_interleave(beams, 0) for x in (h, c))
        return (h, c, torch.zeros_like(h)), (self.key(values), values)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """The features that the output layer reads, and the next state."""
        h, c, feed = state
        keys, values = memory
        h, c = self.cell(torch.cat([self.embedding(tokens), feed], 1), (h, c))
        # The beams of a source read its memory together.
        query = h.view(keys.size(0), -1, keys.size(2))
        weights = torch.softmax(torch.bmm(query, keys.transpose(1, 2)), -1)
        context = torch.bmm(weights, values).view_as(h)
        feed = torch.tanh(self.combine(torch.cat([context, h], 1)))
        return feed, (h, c, feed)

    def pick(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        features, state = self.step(tokens, state, memory)
        return self.output(features).argmax(1), state

    def pick_by_vector(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """One row: the output layer as matrix times vector, which some BLAS do faster."""
        features, state = self.step(tokens, state, memory)
        logits = torch.addmv(self.output.bias, self.output.weight, features[0])
        return logits.argmax(0, keepdim=True), state

    def extend_flat(
        self, tokens: Tensor, scores: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """The best K of the K * V continuations of each source."""
        features, state = self.step(tokens, state, memory)
        logits = self.output(features)
        batch, beams = scores.shape
        totals = torch.log_softmax(logits.float(), 1) + scores.view(-1, 1)
        scores, at = totals.view(batch, -1).topk(beams, 1)
        return self._follow(scores, at, at % logits.size(1), logits.size(1), state)

    def extend(
        self, tokens: Tensor, scores: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """The same by way of each row's best K, which leaves less to sort and writes no (R, V)."""
        features, state = self.step(tokens, state, memory)
        logits = self.output(features).float()
        batch, beams = scores.shape
        best, words = logits.topk(beams, 1)
        totals = best - logits.logsumexp(1, keepdim=True) + scores.view(-1, 1)
        scores, at = totals.view(batch, -1).topk(beams, 1)
        chosen = words.view(batch, -1).gather(1, at)
        return self._follow(scores, at, chosen, beams, state)

    @staticmethod
    def _follow(
        scores: Tensor, at: Tensor, words: Tensor, width: int, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        batch, beams = scores.shape
        first = torch.arange(batch, device=at.device)[:, None] * beams
        rows = (first + at.div(width, rounding_mode="floor")).flatten()
        h, c, feed = (x.index_select(0, rows) for x in state)
        return words.flatten(), scores, rows, (h, c, feed)


@torch.inference_mode()
def greedy(model: TorchModel, pick: Pick, src: Tensor, count: int, first: int) -> Tensor:
    """(B, N) tokens, of `count` steps."""
    state, memory = model.start(src)
    found = torch.empty(count, len(src), dtype=torch.int64)
    tokens = torch.full((len(src),), first)
    for step in range(count):
        tokens, state = pick(tokens, state, memory)
        found[step] = tokens
    return found.t()


@torch.inference_mode()
def beam_search(
    model: TorchModel, extend: Extend, src: Tensor, count: int, first: int, beams: int
) -> tuple[Tensor, Tensor]:
    """(B, K, N) tokens and (B, K) summed log-probabilities, the best first; nothing ends early."""
    batch = len(src)
    state, memory = model.start(src, beams)
    scores = torch.full((batch, beams), -torch.inf)
    scores[:, 0] = 0  # all beams are the same at first
    words = torch.empty(count, batch * beams, dtype=torch.int64)
    parents = torch.empty_like(words)
    tokens = torch.full((batch * beams,), first)
    for step in range(count):
        tokens, scores, rows, state = extend(tokens, scores, state, memory)
        words[step], parents[step] = tokens, rows
    rows = torch.arange(batch * beams)
    for step in reversed(range(count)):  # back along each hypothesis
        words[step], rows = words[step][rows], parents[step][rows]
    return words.t().reshape(batch, beams, count), scores


@torch.inference_mode()
def judge(model: TorchModel, src: Tensor, tokens: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """What a model says of given tokens (R, N), those of a source together.

    Returns how far each token's logit lies under the best one, in standard deviations of its row's
    logits: 0 where it is the best; and each row's summed log-probability (R,).
    """
    state, memory = model.start(src, len(tokens) // len(src))
    previous, gaps = torch.full((len(tokens),), first), []
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for chosen in tokens.t():
        features, state = model.step(previous, state, memory)
        logits = model.output(features)
        taken = logits.gather(1, chosen[:, None])[:, 0]
        gaps.append((logits.amax(1) - taken) / logits.std(1))
        total += taken - logits.logsumexp(1)
        previous = chosen
    return torch.stack(gaps, 1), total


def compiled(steps: Mapping[str, Callable], arguments: Sequence[object]) -> dict[str, Callable]:
    """The steps by torch.compile: in its default mode, and with the weights frozen, which lets it
    pack them. Where one does not compile, a note says why."""
    found: dict[str, Callable] = {}
    for name, step in steps.items():
        made = {
            "torch.compile": torch.compile(step, dynamic=False),
            "torch.compile, frozen": torch.compile(step, dynamic=False, options={"freezing": True}),
        }
        for mode, function in made.items():
            label = name.replace("torch", mode)
            try:
                with torch.inference_mode():
                    function(*arguments)
            except Exception as error:  # whatever a compiler may raise
                reason = str(error).strip().splitlines() or [type(error).__name__]
                print(f"no {label}: {reason[0][:200]}", file=sys.stderr)
                continue
            found[label] = function
    return found
