# SPDX-License-Identifier: MIT
"""The encoder: h_t = f(h_{t-1}, x_t), x_t = E[token_t]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq_ext.nn._checks import (
    CELLS,
    as_lengths,
    check_choice,
    check_probability,
    check_proj_size,
    check_size,
    check_token_id,
    check_tokens,
)
from seq2seq_ext.nn.rnn import GRU, LSTM, RNN


class EncoderOutput(NamedTuple):
    """Everything the encoder knows about a batch of sentences."""

    outputs: Tensor  # (B, S, D*P): h_1 ... h_T of the last layer, zero past each length
    hidden: Tensor  # (L*D, B, P): each layer's and direction's final state
    cell: Tensor | None  # (L*D, B, H): the same of the LSTM's cell state, else None
    lengths: Tensor  # (B,) int64
    mask: Tensor  # (B, S) bool, True at tokens
    embedded: Tensor | None  # (B, S, E): x_1 ... x_T where return_embedded asked for them


def make_rnn(
    cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float, **kwargs: Any
) -> Any:
    """The recurrent layers of an encoder or decoder, batch first: LSTM, GRU or RNN."""
    kwargs["dropout"] = dropout if num_layers > 1 else 0.0
    kwargs["batch_first"] = True
    modules: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
    if cell != "rnn":
        kwargs.pop("nonlinearity", None)
    if not kwargs.get("proj_size"):
        kwargs.pop("proj_size", None)
    return modules[cell](input_size, hidden_size, num_layers, **kwargs)


class Encoder(nn.Module):
    """Embedding and recurrent layers over the source.

    Args:
        vocab_size: V, source vocabulary.
        embedding_size: E.
        hidden_size: H, per direction.
        cell: "lstm", "gru" or "rnn".
        num_layers: L.
        bidirectional: read in both directions; the outputs are D*P wide.
        dropout: on the embeddings and between layers.
        padding_idx: token of padding; gives lengths where forward gets none.
        nonlinearity: "tanh" or "relu", of cell "rnn".
        proj_size: P: an LSTM's h_t is projected to so many features, fewer than H; 0: it is not,
            and P is H.

    Raises ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        cell: str = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_idx: int | None = None,
        nonlinearity: str = "tanh",
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("vocab_size", vocab_size),
            ("embedding_size", embedding_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            check_size("Encoder", name, size)
        check_choice("Encoder", "cell", cell, CELLS)
        check_proj_size("Encoder", proj_size, cell, hidden_size)
        check_probability("Encoder", "dropout", dropout)
        if padding_idx is not None:
            check_token_id("Encoder", "padding_idx", padding_idx, vocab_size)
        self._config = {
            "vocab_size": vocab_size,
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "cell": cell,
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "padding_idx": padding_idx,
            "nonlinearity": nonlinearity,
            "proj_size": proj_size,
        }
        self.vocab_size, self.hidden_size, self.num_layers = vocab_size, hidden_size, num_layers
        self.cell, self.dropout, self.padding_idx = cell, float(dropout), padding_idx
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.num_directions * (proj_size or hidden_size)
        factory = {"device": device, "dtype": dtype}
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx, **factory)
        self.rnn = make_rnn(
            cell,
            embedding_size,
            hidden_size,
            num_layers,
            float(dropout),
            bidirectional=bidirectional,
            nonlinearity=nonlinearity,
            proj_size=proj_size,
            **factory,
        )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain data: `Encoder(**config)` has the same shape."""
        return dict(self._config)

    def forward(
        self,
        src: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        return_embedded: bool = False,
    ) -> EncoderOutput:
        """
        Args:
            src: (B, S) token ids, rows padded at their ends.
            lengths: (B,), in any order; None: up to the last token that is not padding_idx, or all
                S.
            return_embedded: keep x_1 ... x_T in the result.

        Raises ValueError, TypeError, IndexError: wrong shape or dtype, lengths outside 0..S, ids
        out of range.
        """
        check_tokens("Encoder", "src", src, 2, self.embedding)
        batch, size = src.shape
        if size == 0:
            raise ValueError(
                f"Encoder: src must have at least one position, got {tuple(src.shape)}"
            )
        if lengths is not None:
            lengths = as_lengths("Encoder", "lengths", lengths, batch, src.device)
        else:
            lengths = self._find_lengths(src)
        x = F.dropout(self.embedding(src), self.dropout, self.training)
        outputs, final = self.rnn(x, lengths=lengths)
        hidden, cell = final if self.cell == "lstm" else (final, None)
        mask = torch.arange(size, device=src.device) < lengths[:, None]
        return EncoderOutput(outputs, hidden, cell, lengths, mask, x if return_embedded else None)

    def _find_lengths(self, src: Tensor) -> Tensor:
        if self.padding_idx is None:
            return src.new_full((src.size(0),), src.size(1), dtype=torch.int64)
        positions = torch.arange(1, src.size(1) + 1, device=src.device)
        return torch.where(src != self.padding_idx, positions, 0).amax(1)
