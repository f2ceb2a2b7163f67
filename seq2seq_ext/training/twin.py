# SPDX-License-Identifier: MIT
"""The same encoder-decoder on torch.nn modules, as a user would write it: the yardstick of `demo`.

`TorchTwin` has the parameter names of `Seq2Seq`, so it takes its weights; both then compute the
same function, and `compare` times one against the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2seq_ext.data.batching import Batch
from seq2seq_ext.data.tokenizer import EOS, PAD, SOS
from seq2seq_ext.nn import Seq2Seq

_LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class _Encoder(nn.Module):
    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        encoder = model.encoder
        self.embedding = nn.Embedding(
            encoder.vocab_size, encoder.embedding.embedding_dim, padding_idx=PAD
        )
        self.rnn = _LAYERS[encoder.cell](
            encoder.embedding.embedding_dim,
            encoder.hidden_size,
            encoder.num_layers,
            batch_first=True,
            bidirectional=encoder.num_directions == 2,
        )

    def forward(self, src: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        packed = pack_padded_sequence(
            self.embedding(src), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, state = self.rnn(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True)
        return (outputs, *state) if isinstance(state, tuple) else (outputs, state, None)


class _Bridge(nn.Module):
    """linear_tanh of both directions' final states, layer by layer."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        decoder, width = model.decoder, model.encoder.output_size
        self.directions = model.encoder.num_directions
        names = ("hidden", "cell") if decoder.cell == "lstm" else ("hidden",)
        for name in names:
            layers = [nn.Linear(width, decoder.hidden_size) for _ in range(decoder.num_layers)]
            self.add_module(name, nn.ModuleList(layers))

    def initial(self, name: str, state: Tensor) -> Tensor:
        linears = self.get_submodule(name)
        assert isinstance(linears, nn.ModuleList)
        rows = state.unflatten(0, (-1, self.directions)).transpose(1, 2).flatten(2)
        return torch.stack([torch.tanh(f(r)) for f, r in zip(linears, rows, strict=True)])


class _Attention(nn.Module):
    """Luong's general attention."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        width = model.encoder.output_size
        self.key = nn.Linear(width, model.decoder.hidden_size, bias=False)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        scores = torch.bmm(query, keys.transpose(1, 2))
        weights = torch.softmax(scores.masked_fill(~mask[:, None], float("-inf")), dim=-1)
        return torch.bmm(weights, values)


class _Decoder(nn.Module):
    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        decoder = model.decoder
        size, hidden = decoder.embedding.embedding_dim, decoder.hidden_size
        self.embedding = nn.Embedding(decoder.vocab_size, size, padding_idx=PAD)
        self.rnn = _LAYERS[decoder.cell](size, hidden, decoder.num_layers, batch_first=True)
        self.bridge = _Bridge(model)
        self.attention = _Attention(model)
        self.combine = nn.RNNCell(model.encoder.output_size, hidden, bias=False)
        self.output = nn.Linear(hidden, decoder.vocab_size)

    def forward(
        self, tokens: Tensor, state: object, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, object]:
        """tokens (B, T) -> logits (B, T, V): all steps of training, or one step of decoding."""
        hidden, state = self.rnn(self.embedding(tokens), state)
        context = self.attention(hidden, keys, values, mask)
        mixed = F.linear(context, self.combine.weight_ih) + F.linear(hidden, self.combine.weight_hh)
        return self.output(torch.tanh(mixed)), state


class TorchTwin(nn.Module):
    """`model` on torch.nn, with its weights.

    Raises:
        ValueError: the model is not of the one shape this twin has: general attention, bridge
            linear_tanh, equal cells and layers, no input feeding, no tied embeddings.
    """

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        decoder = model.decoder
        same = decoder.cell == model.encoder.cell
        same = same and decoder.num_layers == model.encoder.num_layers
        attention = decoder.attention is not None and decoder.attention.kind == "general"
        if not same or not attention or decoder.bridge.kind != "linear_tanh":
            raise ValueError("model: expected general attention, bridge linear_tanh, equal layers")
        if decoder.input_feeding or decoder.output is None:
            raise ValueError("model: expected no input feeding and no tied embeddings")
        self.encoder, self.decoder = _Encoder(model), _Decoder(model)
        self.load_state_dict(model.state_dict())

    def _start(self, src: Tensor, lengths: Tensor) -> tuple[object, Tensor, Tensor, Tensor]:
        values, hidden, cell = self.encoder(src, lengths)
        bridge = self.decoder.bridge
        state: object = bridge.initial("hidden", hidden)
        if cell is not None:
            state = (state, bridge.initial("cell", cell))
        mask = torch.arange(values.size(1)) < lengths[:, None]
        return state, self.decoder.attention.key(values), values, mask

    def forward(self, src: Tensor, lengths: Tensor, tgt_in: Tensor) -> Tensor:
        """Teacher forcing: logits (B, T, V)."""
        state, keys, values, mask = self._start(src, lengths)
        logits: Tensor = self.decoder(tgt_in, state, keys, values, mask)[0]
        return logits

    @torch.inference_mode()
    def generate(self, src: Tensor, lengths: Tensor, max_new_tokens: int) -> Tensor:
        """Greedy decoding: (B, T) tokens, <pad> after each row's <eos>."""
        state, keys, values, mask = self._start(src, lengths)
        token = torch.full((src.size(0), 1), SOS)
        done = torch.zeros(src.size(0), dtype=torch.bool)
        steps = []
        for _ in range(max_new_tokens):
            logits, state = self.decoder(token, state, keys, values, mask)
            token = torch.where(done[:, None], PAD, logits.argmax(-1))
            steps.append(token)
            done |= token[:, 0] == EOS
            if done.all():
                break
        return torch.cat(steps, dim=1)


@dataclass(frozen=True)
class Timing:
    """Median seconds of one piece of work, ours and torch.nn's, over interleaved rounds."""

    name: str
    ours: float
    torch_nn: float

    @property
    def ratio(self) -> float:
        return self.torch_nn / self.ours


def interleaved(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> Timing:
    """Times both in turn, so that whatever else the machine does falls on both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for work in (ours, theirs):
        work()  # warm-up
    for round_ in range(rounds):
        order = (0, 1) if round_ % 2 == 0 else (1, 0)
        for which in order:
            started = time.perf_counter()
            (ours, theirs)[which]()
            seconds[which].append(time.perf_counter() - started)
    return Timing(name, statistics.median(seconds[0]), statistics.median(seconds[1]))


def _training_step(model: nn.Module, batches: Sequence[Batch]) -> Callable[[], None]:
    """Forward, loss and backward over the batches; no optimizer, so the weights stay equal."""

    def work() -> None:
        for batch in batches:
            model.zero_grad(set_to_none=True)
            logits = model(batch.source, batch.source_lengths, batch.target_in)
            F.cross_entropy(logits.flatten(0, 1), batch.target_out.flatten(), ignore_index=PAD
                            ).backward()  # fmt: skip

    return work


@dataclass(frozen=True)
class Comparison:
    timings: list[Timing]
    same_tokens: float  # share of sentences that both decode to the same tokens
    largest_difference: float  # of the logits, over their largest magnitude


def compare(model: Seq2Seq, batches: Sequence[Batch], *, rounds: int = 7) -> Comparison:
    """Times `model` against its torch.nn twin with the same weights on the same batches.

    Training is forward, loss and backward; decoding is greedy, batched and one by one.
    """
    model = model.eval()
    twin = TorchTwin(model).eval()
    limit = model.generation_config.max_new_tokens
    singles = [
        (batch.source[i : i + 1, : int(batch.source_lengths[i])], batch.source_lengths[i : i + 1])
        for batch in batches
        for i in range(min(4, len(batch.source)))
    ][:16]
    whole = [(batch.source, batch.source_lengths) for batch in batches]

    def ours(inputs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        found = [model.generate(src, lengths, suppress_tokens=None) for src, lengths in inputs]
        return [tokens for tokens in found if isinstance(tokens, Tensor)]

    def theirs(inputs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [twin.generate(src, lengths, limit) for src, lengths in inputs]

    with torch.no_grad():
        first = batches[0]
        arguments = (first.source, first.source_lengths, first.target_in)
        expected = twin(*arguments)
        difference = float((model(*arguments) - expected).abs().max() / expected.abs().max())
    agree = [
        torch.equal(a[row][a[row] != PAD], b[row][b[row] != PAD])
        for a, b in zip(ours(whole), theirs(whole), strict=True)
        for row in range(len(a))
    ]
    many = f"{len(batches)} batches of {len(batches[0].source)}"
    timings = [
        interleaved(
            f"training, {many}",
            _training_step(model, batches),
            _training_step(twin, batches),
            rounds,
        ),
        interleaved(f"greedy, {many}", lambda: ours(whole), lambda: theirs(whole), rounds),
        interleaved(
            f"greedy, {len(singles)} one by one",
            lambda: ours(singles),
            lambda: theirs(singles),
            rounds,
        ),
    ]
    return Comparison(timings, sum(agree) / len(agree), difference)
