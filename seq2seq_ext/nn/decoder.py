# SPDX-License-Identifier: MIT
"""The decoder: s_t = g(s_{t-1}, y_{t-1}, c), P(y_t) = softmax(W_o s_t + b_o)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq2seq_ext import ops
from seq2seq_ext.nn._checks import check_probability, check_tokens
from seq2seq_ext.nn._decoder_config import check_config
from seq2seq_ext.nn.attention import Attention, AttentionMemory
from seq2seq_ext.nn.bridge import Bridge, last_output, mean_output
from seq2seq_ext.nn.cells import RNNCell
from seq2seq_ext.nn.encoder import Encoder, EncoderOutput, make_rnn
from seq2seq_ext.nn.loss import LinearCrossEntropy


class DecoderState(NamedTuple):
    """What goes from one step to the next."""

    hidden: tuple[Tensor, ...]  # of each layer, (B, P)
    cell: tuple[Tensor, ...] | None  # LSTM: of each layer, (B, H), float32 beside 16-bit weights
    feed: Tensor | None  # input feeding: the last attentional vector, (B, P)

    def index_select(self, rows: Tensor) -> DecoderState:
        """The state of some rows, in that order (beam search, finished rows)."""
        cell = None if self.cell is None else tuple(c[rows] for c in self.cell)
        feed = None if self.feed is None else self.feed[rows]
        return DecoderState(tuple(h[rows] for h in self.hidden), cell, feed)


class DecoderMemory(NamedTuple):
    """What stays the same over all steps of a sentence."""

    attention: AttentionMemory | None
    context: (
        Tensor | None
    )  # c (B, C) where it is one vector: context "initial_state" and "every_step"

    def index_select(self, rows: Tensor) -> DecoderMemory:
        attention = None if self.attention is None else self.attention.index_select(rows)
        return DecoderMemory(attention, None if self.context is None else self.context[rows])


class DecoderStep(NamedTuple):
    """One step. `features` is what the output layer reads."""

    features: Tensor  # (B, P): s_t, or the attentional vector tanh(W [c_t; s_t])
    state: DecoderState
    hidden: Tensor  # (B, P): s_t
    context: Tensor  # (B, C): c_t with attention, c without
    weights: Tensor | None  # (B, S): attention


class DecoderOutput(NamedTuple):
    """All steps of a batch."""

    logits: Tensor  # (B, T, V)
    hidden: Tensor  # (B, T, P): s_1 ... s_T
    context: Tensor  # (B, T, C) with attention; (B, C) without
    weights: Tensor | None  # (B, T, S)
    state: DecoderState


# Of all steps: features, and DecoderOutput's fields but the logits.
_Steps = tuple[Tensor, Tensor, Tensor, Tensor | None, DecoderState]


class Decoder(nn.Module):
    """Embedding, recurrent layers and output layer over the target, with the source's context c.

    Args:
        vocab_size: V, target vocabulary.
        embedding_size: E.
        hidden_size: H.
        encoder: the encoder it will read from; only its sizes are taken.
        cell, num_layers, nonlinearity, padding_idx: as for `Encoder`; they need not be the
            encoder's.
        context: where c enters. "initial_state": s_0 alone (Sutskever et al. 2014); "every_step":
            beside each y_{t-1}, too (Cho et al. 2014); "attention": c_t is a weighted sum of the
            encoder's outputs, read by the output layer through tanh(W [c_t; s_t]) (Luong et al.
            2015).
        summary: what c is where it is one vector. "last": the encoder's final state; "mean":
            mean(h_1 ... h_T). None: "mean" with bridge "mean", else "last". With "initial_state" it
            goes with the bridge.
        attention: "dot", "scaled_dot", "general" or "additive"; None: "general".
        attention_size: size of the additive hidden layer.
        input_feeding: the attentional vector of step t-1 is fed to the layers at step t (Luong et
            al. 2015, section 3.3). Training then runs step by step.
        bridge: "copy", "linear", "linear_tanh", "zero" or "mean": see `Bridge`.
        dropout: on embeddings, between layers and before the output layer.
        tied_embeddings: the output weight is the target embedding; a projection stands between
            where P != E.
        proj_size: P: an LSTM's s_t is projected to so many features, fewer than H (Sak et al.
            2014), and so is what reads it: attention, the attentional vector, the output layer. The
            cell state keeps H. 0: no projection, and P is H.

    Raises ValueError, TypeError: an argument out of its range, or arguments that contradict each
    other.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        encoder: Encoder,
        cell: str = "gru",
        num_layers: int = 1,
        context: str = "attention",
        summary: str | None = None,
        attention: str | None = None,
        attention_size: int | None = None,
        input_feeding: bool = False,
        bridge: str = "linear_tanh",
        dropout: float = 0.0,
        tied_embeddings: bool = False,
        padding_idx: int | None = None,
        nonlinearity: str = "tanh",
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._config = {
            "vocab_size": vocab_size,
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "cell": cell,
            "num_layers": num_layers,
            "context": context,
            "summary": summary,
            "attention": attention,
            "attention_size": attention_size,
            "input_feeding": input_feeding,
            "bridge": bridge,
            "dropout": dropout,
            "tied_embeddings": tied_embeddings,
            "padding_idx": padding_idx,
            "nonlinearity": nonlinearity,
            "proj_size": proj_size,
        }
        if not isinstance(encoder, Encoder):
            raise TypeError(f"Decoder: encoder must be an Encoder, got {type(encoder).__name__}")
        check_config(self._config)
        self.vocab_size, self.hidden_size, self.num_layers = vocab_size, hidden_size, num_layers
        self.output_size = proj_size or hidden_size  # P: of s_t and of the attentional vector
        self.cell, self.context, self.input_feeding = cell, context, input_feeding
        self.summary = summary or ("mean" if bridge == "mean" else "last")
        self.dropout = float(dropout)
        self._encoder_directions = encoder.num_directions
        factory = {"device": device, "dtype": dtype}

        extra = 0
        if context == "every_step":
            extra = encoder.output_size
        elif input_feeding:
            extra = self.output_size
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx, **factory)
        self.rnn = make_rnn(
            cell,
            embedding_size + extra,
            hidden_size,
            num_layers,
            self.dropout,
            nonlinearity=nonlinearity,
            proj_size=proj_size,
            **factory,
        )
        self.bridge = Bridge(
            encoder,
            bridge,
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            proj_size=proj_size,
            **factory,
        )
        self.attention: Attention | None = None
        if context == "attention":
            self.attention = Attention(
                self.output_size,
                encoder.output_size,
                attention or "general",
                attention_size=attention_size,
                **factory,
            )
            # tanh(W_c c + W_s s) is an Elman step from s on the input c: one fused kernel.
            self.combine = RNNCell(encoder.output_size, self.output_size, bias=False, **factory)
        self._make_output(tied_embeddings, embedding_size, factory)

    def _make_output(self, tied: bool, embedding_size: int, factory: dict[str, Any]) -> None:
        self.output: nn.Linear | None = None
        self.projection: nn.Linear | None = None
        if not tied:
            self.output = nn.Linear(self.output_size, self.vocab_size, **factory)
            return
        # The weight is not registered twice, so that a state dict has no two names for one storage.
        self.output_bias = nn.Parameter(torch.zeros(self.vocab_size, **factory))
        if embedding_size != self.output_size:
            self.projection = nn.Linear(self.output_size, embedding_size, bias=False, **factory)
        with torch.no_grad():  # nn.Embedding's N(0, 1) would make logits of size sqrt(E)
            self.embedding.weight.normal_(0, embedding_size**-0.5)
            if self.embedding.padding_idx is not None:
                self.embedding.weight[self.embedding.padding_idx] = 0

    def config(self) -> dict[str, Any]:
        """The constructor's arguments but `encoder`, plain data."""
        return dict(self._config)

    # -- output layer ------------------------------------------------------------------------------

    def logits(self, features: Tensor) -> Tensor:
        """W_o features + b_o: (..., P) -> (..., V)."""
        if self.output is not None:
            return self.output(features)
        return F.linear(*self.readout(features))

    def readout(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features, projected where W_o wants it, W_o and b_o: for `ops.linear_cross_entropy`."""
        if self.output is not None:
            return features, self.output.weight, self.output.bias
        if self.projection is not None:
            features = self.projection(features)
        return features, self.embedding.weight, self.output_bias

    def output_parameters(self) -> tuple[Tensor, Tensor]:
        """W_o (V, P) and b_o (V), a projection folded in: for `ops.vocab_pick`, step after step."""
        if self.output is not None:
            return self.output.weight, self.output.bias
        weight = self.embedding.weight
        if self.projection is not None:
            weight = weight @ self.projection.weight
        return weight, self.output_bias

    # -- one step ----------------------------------------------------------------------------------

    def prepare(
        self, encoded: EncoderOutput, *, invariant: bool = False
    ) -> tuple[DecoderMemory, DecoderState]:
        """What the steps need of a source: the memory, fixed, and the first state.

        invariant: keep each row's bits independent of its batch (slower; decoding asks for it).
        """
        hidden, cell = self.bridge(encoded, invariant=invariant)
        if cell is not None and cell[0].dtype in (torch.float16, torch.bfloat16):
            cell = tuple(c.float() for c in cell)
        feed = torch.zeros_like(hidden[0]) if self.input_feeding else None
        state = DecoderState(hidden, cell, feed)
        if self.attention is not None:
            memory = self.attention.prepare(encoded.outputs, encoded.lengths, invariant=invariant)
            return DecoderMemory(memory, None), state
        if self.summary == "mean":
            return DecoderMemory(None, mean_output(encoded, invariant=invariant)), state
        return DecoderMemory(None, last_output(encoded, self._encoder_directions)), state

    def step(
        self, tokens: Tensor, state: DecoderState, memory: DecoderMemory, *, beams: int = 1
    ) -> DecoderStep:
        """One step from tokens y_{t-1} (B,). Without gradients the fused step kernels run.

        beams: rows of each source; they stand together, and the memory holds their source once:
            tokens and state have beams times the memory's rows.

        Raises IndexError: an id out of range (on the CPU; elsewhere it is not looked at).
        """
        try:
            x = self._embed(tokens)
        except IndexError:  # only now: a look at every step would cost decoding time
            check_tokens("Decoder.step", "tokens", tokens, 1, self.embedding)
            raise
        return self._step(x, state, memory, beams)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout > 0 else x

    def _embed(self, tokens: Tensor) -> Tensor:
        return self._drop(self.embedding(tokens))

    def _step(
        self, x: Tensor, state: DecoderState, memory: DecoderMemory, beams: int = 1
    ) -> DecoderStep:
        if self.context == "every_step":
            assert memory.context is not None
            context = memory.context.to(x.dtype)
            if beams > 1:
                context = context.repeat_interleave(beams, dim=0)
            x = torch.cat([x, context], dim=-1)
        elif state.feed is not None:
            x = torch.cat([x, state.feed.to(x.dtype)], dim=-1)
        if state.cell is not None:
            hidden, (hs, cs) = self.rnn.step(x, (state.hidden, state.cell))
        else:
            hidden, hs = self.rnn.step(x, state.hidden)
            cs = None
        features, context, weights = self._read(hidden, memory, beams)
        features = self._drop(features)
        state = DecoderState(hs, cs, features if self.input_feeding else None)
        return DecoderStep(features, state, hidden, context, weights)

    def _read(
        self, hidden: Tensor, memory: DecoderMemory, beams: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """features, context, weights for s_t (B, P), or for all s_1 ... s_T (B, T, P)."""
        if self.attention is None:
            assert memory.context is not None
            return hidden, memory.context, None
        assert memory.attention is not None
        if beams > 1:
            context, weights = self._attend_together(hidden, memory.attention, beams)
        else:
            context, weights = self.attention(hidden, memory.attention)
        if hidden.dim() == 2:
            return self.combine(context, hidden), context, weights
        mixed = F.linear(context, self.combine.weight_ih) + F.linear(hidden, self.combine.weight_hh)
        return torch.tanh(mixed), context, weights

    def _attend_together(
        self, hidden: Tensor, memory: AttentionMemory, beams: int
    ) -> tuple[Tensor, Tensor]:
        """The attention of `beams` rows a source: a call a beam, so that the memory, much the
        larger side, is read where it lies and not repeated."""
        assert self.attention is not None
        queries = hidden.unflatten(0, (-1, beams)).unbind(1)
        contexts, weights = zip(*(self.attention(q, memory) for q in queries), strict=True)
        return torch.stack(contexts, 1).flatten(0, 1), torch.stack(weights, 1).flatten(0, 1)

    # -- all steps ---------------------------------------------------------------------------------

    def forward(
        self, tgt_in: Tensor, encoded: EncoderOutput, *, teacher_forcing_ratio: float = 1.0
    ) -> DecoderOutput:
        """
        Args:
            tgt_in: (B, T) token ids y_0 ... y_{T-1}, y_0 the start token.
            encoded: from the encoder.
            teacher_forcing_ratio: probability with which step t reads y_{t-1}; otherwise it reads
                the model's own most probable token of step t-1 (scheduled sampling, Bengio et al.
                2015; drawn per row and step from torch's default generator). With 1, and without
                input feeding, the layers run as one sequence and attention as one batched product;
                otherwise step by step.

        Raises ValueError, TypeError, IndexError: wrong shape, dtype, ratio, ids out of range.
        """
        features, *_ = steps = self._run(tgt_in, encoded, teacher_forcing_ratio)
        return DecoderOutput(self.logits(features), *steps[1:])

    def loss(
        self,
        tgt_in: Tensor,
        encoded: EncoderOutput,
        target: Tensor,
        criterion: LinearCrossEntropy,
        *,
        teacher_forcing_ratio: float = 1.0,
    ) -> Tensor:
        """`criterion` of target (B, T), y_1 ... y_T, and the logits that `forward` would return;
        those are not kept in memory."""
        features, *_ = self._run(tgt_in, encoded, teacher_forcing_ratio)
        features, weight, bias = self.readout(features)
        return criterion(features, weight, target, bias)

    def _run(self, tgt_in: Tensor, encoded: EncoderOutput, ratio: float) -> _Steps:
        check_tokens("Decoder", "tgt_in", tgt_in, 2, self.embedding)
        check_probability("Decoder", "teacher_forcing_ratio", ratio)
        if tgt_in.size(0) != encoded.outputs.size(0):
            raise ValueError(
                f"Decoder: tgt_in must have the source's {encoded.outputs.size(0)} rows, "
                f"got {tgt_in.size(0)}"
            )
        if tgt_in.size(1) == 0:
            raise ValueError(
                f"Decoder: tgt_in must have at least one position, got {tuple(tgt_in.shape)}"
            )
        memory, state = self.prepare(encoded)
        x = self._embed(tgt_in)
        if ratio == 1 and not self.input_feeding:
            return self._run_sequence(x, memory, state)
        return self._run_steps(x, memory, state, ratio)

    def _run_sequence(self, x: Tensor, memory: DecoderMemory, state: DecoderState) -> _Steps:
        if self.context == "every_step":
            assert memory.context is not None
            context = memory.context.to(x.dtype)[:, None].expand(-1, x.size(1), -1)
            x = torch.cat([x, context], dim=-1)
        hx = torch.stack(state.hidden)
        if state.cell is not None:
            hidden, (h_n, c_n) = self.rnn(x, (hx, torch.stack(state.cell)))
            final = DecoderState(h_n.unbind(), c_n.unbind(), None)
        else:
            hidden, h_n = self.rnn(x, hx)
            final = DecoderState(h_n.unbind(), None, None)
        features, read, weights = self._read(hidden, memory)
        return self._drop(features), hidden, read, weights, final

    def _run_steps(
        self, x: Tensor, memory: DecoderMemory, state: DecoderState, ratio: float
    ) -> _Steps:
        steps: list[DecoderStep] = []
        output = self.output_parameters() if ratio < 1 else None
        for t in range(x.size(1)):
            xt = x[:, t]
            if t > 0 and output is not None:
                own = ops.vocab_pick(steps[-1].features, *output)[1][:, 0]
                forced = torch.rand(own.shape, device=own.device) < ratio
                xt = torch.where(forced[:, None], xt, self._embed(own))
            steps.append(self._step(xt, state, memory))
            state = steps[-1].state
        features = torch.stack([step.features for step in steps], dim=1)
        hidden = torch.stack([step.hidden for step in steps], dim=1)
        context, weights = steps[-1].context, None
        if self.attention is not None:
            context = torch.stack([step.context for step in steps], 1)
            weights = torch.stack([step.weights for step in steps if step.weights is not None], 1)
        return features, hidden, context, weights, state
