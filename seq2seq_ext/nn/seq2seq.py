# SPDX-License-Identifier: MIT
"""Encoder and decoder as one model: training forward, `generate` and `score`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seq2seq_ext.generation import (
    GenerateOutput,
    GenerationConfig,
    ScoreOutput,
    generate,
    score,
)
from seq2seq_ext.generation.output import Callback
from seq2seq_ext.generation.prepared import PreparedWeights
from seq2seq_ext.nn.decoder import Decoder, DecoderOutput
from seq2seq_ext.nn.encoder import Encoder, EncoderOutput
from seq2seq_ext.nn.loss import LinearCrossEntropy


class Seq2SeqOutput(NamedTuple):
    """A forward pass in full: the mission's x_t, h_t, c, s_t and logits."""

    logits: Tensor  # (B, T, V)
    encoder: EncoderOutput
    decoder: DecoderOutput


class Seq2Seq(nn.Module):
    """A recurrent encoder-decoder.

    Args:
        encoder, decoder: the decoder made for this encoder.
        generation_config: defaults of `generate`: special tokens and limits.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        *,
        generation_config: GenerationConfig | None = None,
    ) -> None:
        super().__init__()
        for name, part, kind in (("encoder", encoder, Encoder), ("decoder", decoder, Decoder)):
            if not isinstance(part, kind):
                raise TypeError(
                    f"Seq2Seq: {name} must be of type {kind.__name__}, got {type(part).__name__}"
                )
        self.encoder, self.decoder = encoder, decoder
        self._prepared: PreparedWeights | None = None
        self.generation_config = generation_config or GenerationConfig()
        self.generation_config.validate(decoder.vocab_size)

    @classmethod
    def build(
        cls,
        src_vocab_size: int,
        tgt_vocab_size: int,
        *,
        embedding_size: int = 256,
        hidden_size: int = 256,
        cell: str = "gru",
        num_layers: int = 1,
        bidirectional: bool = False,
        encoder_hidden_size: int | None = None,
        proj_size: int = 0,
        encoder_proj_size: int | None = None,
        dropout: float = 0.0,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 1,
        eos_token_id: int | Sequence[int] | None = 2,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        **decoder_options: Any,
    ) -> Seq2Seq:
        """A model from sizes and options.

        Args:
            hidden_size: H of the decoder. The encoder's, per direction, is encoder_hidden_size;
                None: H, or H / 2 with two directions, so that its outputs are H wide.
            proj_size: P of a decoder of LSTM cells with projection; 0: none. The encoder's is
                encoder_proj_size; None: P, or P / 2 with two directions.
            pad_token_id, bos_token_id, eos_token_id: of both vocabularies.
            decoder_options: context, summary, attention, attention_size, input_feeding, bridge,
                tied_embeddings: see `Decoder`.
        """
        if encoder_hidden_size is None:
            if bidirectional and hidden_size % 2:
                raise ValueError(
                    "Seq2Seq.build: with two directions hidden_size must be even "
                    "(each direction takes half of it) or encoder_hidden_size be given, "
                    f"got {hidden_size}"
                )
            encoder_hidden_size = hidden_size // 2 if bidirectional else hidden_size
        if encoder_proj_size is None:
            if bidirectional and proj_size % 2:
                raise ValueError(
                    "Seq2Seq.build: with two directions proj_size must be even (each direction "
                    f"takes half of it) or encoder_proj_size be given, got {proj_size}"
                )
            encoder_proj_size = proj_size // 2 if bidirectional else proj_size
        shared: dict[str, Any] = {
            "cell": cell,
            "num_layers": num_layers,
            "dropout": dropout,
            "padding_idx": pad_token_id,
            "nonlinearity": nonlinearity,
            "device": device,
            "dtype": dtype,
        }
        encoder = Encoder(
            src_vocab_size,
            embedding_size,
            encoder_hidden_size,
            bidirectional=bidirectional,
            proj_size=encoder_proj_size,
            **shared,
        )
        decoder = Decoder(
            tgt_vocab_size,
            embedding_size,
            hidden_size,
            encoder=encoder,
            proj_size=proj_size,
            **shared,
            **decoder_options,
        )
        config = GenerationConfig(
            pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id
        )
        return cls(encoder, decoder, generation_config=config)

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain data fit for JSON; `from_config` takes it."""
        return {
            "encoder": self.encoder.config(),
            "decoder": self.decoder.config(),
            "generation": self.generation_config.to_dict(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], *, device: Any = None, dtype: Any = None
    ) -> Seq2Seq:
        """A model of the same shape with fresh weights.

        Raises ValueError, TypeError: a part is missing, unknown or out of its range.
        """
        missing = {"encoder", "decoder"} - set(config)
        if missing:
            raise ValueError(f"Seq2Seq.from_config: config lacks {', '.join(sorted(missing))}")
        encoder = Encoder(**config["encoder"], device=device, dtype=dtype)
        decoder = Decoder(**config["decoder"], encoder=encoder, device=device, dtype=dtype)
        generation = GenerationConfig(**config.get("generation", {}))
        return cls(encoder, decoder, generation_config=generation)

    def forward(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None,
        tgt_in: Tensor,
        *,
        teacher_forcing_ratio: float = 1.0,
        return_details: bool = False,
    ) -> Any:
        """
        Args:
            src: (B, S) token ids, padded at the end.
            src_lengths: (B,), or None: see `Encoder`.
            tgt_in: (B, T) token ids, the start token first.
            teacher_forcing_ratio: below 1: scheduled sampling, see `Decoder`.
            return_details: return a `Seq2SeqOutput` (logits, states, contexts, weights), not the
                logits alone.

        Returns:
            logits (B, T, V): logits[:, t] predicts the token after tgt_in[:, t].
        """
        encoded = self.encoder(src, src_lengths, return_embedded=return_details)
        decoded = self.decoder(tgt_in, encoded, teacher_forcing_ratio=teacher_forcing_ratio)
        if return_details:
            return Seq2SeqOutput(decoded.logits, encoded, decoded)
        return decoded.logits

    def loss(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None,
        tgt_in: Tensor,
        target: Tensor,
        criterion: LinearCrossEntropy,
        *,
        teacher_forcing_ratio: float = 1.0,
    ) -> Tensor:
        """`criterion` of target (B, T), the tokens after those of tgt_in, and the logits that
        `forward` would return; those are not kept in memory."""
        encoded = self.encoder(src, src_lengths)
        return self.decoder.loss(
            tgt_in, encoded, target, criterion, teacher_forcing_ratio=teacher_forcing_ratio
        )

    def prepare_for_decoding(
        self, dtype: torch.dtype | None, *, rescore_dtype: torch.dtype | None = None
    ) -> PreparedWeights | None:
        """Makes, once, a copy of the model's weights for `generate` and `score` to read, packed as
        the processor multiplies by them fastest: what these cost at small batches is the bytes of
        the weights.

        Packed weights are summed in an order of their own. Results are the same bits alone and in
        any batch, as they are without the copy; between the two, last bits may differ. The copy is
        no part of the state dict, and is made anew when the weights have changed. CPU only.

        Args:
            dtype: torch.bfloat16, torch.float32, torch.float64: of all weights, the encoder's
                included, and of what is computed from them. torch.int8: the
                output layer is read in int8, and those few tokens that might be among the best are
                computed anew from weights of rescore_dtype: a row's best tokens, in their order,
                are those of dtype=rescore_dtype. In greedy decoding, beam search, sampling with
                top_k up to 128, and `score`; anything else chooses by the weights of rescore_dtype.
                In all log-probabilities the sum over the vocabulary is taken in int8, so `score`
                says to the bit what `generate` does; both are off the exact ones by a term that
                the tokens of a row's step share, which may sway beam search. Measured: 5e-4 in the
                mean and 1e-3 at most with 32000 words of random weights, up to 0.035 where some
                words' weights are far larger than others'. Other dtypes have exact sums. None:
                removes the copy.
            rescore_dtype: with torch.int8: of all weights beside it, the encoder's and the layers'
                included; None: torch.bfloat16, so tokens may differ from the float32 model's.
                torch.float32: tokens are the float32 model's, of greedy decoding and sampling.

        Returns the copy, whose `memory_bytes` says what it takes.

        Raises ValueError: another dtype, a model on a GPU, weights that are not finite (int8).
        """
        self._prepared = None
        if dtype is not None:
            self._prepared = PreparedWeights(self.encoder, self.decoder, dtype, rescore_dtype)
        elif rescore_dtype is not None:
            raise ValueError(
                "prepare_for_decoding: rescore_dtype is for dtype torch.int8, not None"
            )
        return self._prepared

    def prepared_weights(self) -> PreparedWeights | None:
        """Those of `prepare_for_decoding`, of the weights as they are now; None: nothing is
        prepared."""
        prepared = self._prepared
        if prepared is not None and not prepared.fits(self.encoder, self.decoder):
            rescore = prepared.wide if prepared.dtype == torch.int8 else None
            prepared = self.prepare_for_decoding(prepared.dtype, rescore_dtype=rescore)
        return prepared

    def __getstate__(self) -> dict[str, Any]:
        # Copies and files of a model hold its weights once.
        return {**self.__dict__, "_prepared": None}

    def generate(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        prefix_tokens: Tensor | Sequence[Sequence[int]] | None = None,
        allowed_tokens: Tensor | None = None,
        shortlist: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        row_ids: Tensor | Sequence[int] | None = None,
        callback: Callback | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Decodes a whole batch at once, each row up to its own end-of-sequence token: greedily, by
        sampling (do_sample=True), or by beam search (num_beams above 1).

        Dropout is off whatever the module's mode. What each option means, in which order they act,
        and what happens at the edges is written down in `seq2seq_ext.generation`. A row's tokens
        and scores are the same bits alone and in any batch (CPU library loaded).

        Args:
            src, src_lengths: as in `forward`.
            generation_config: replaces the model's own.
            prefix_tokens: what each row must begin with: (B, P) ids, -1 behind each row's end, or
                lists of ids. They count as new tokens.
            allowed_tokens: (V,) or (B, V) bool: the only tokens that may be chosen.
            shortlist: ids (n,) for all rows, or (B, n) with -1 at the end, or lists: the softmax is
                over these, end-of-sequence tokens and prefixes alone, and only their rows of the
                output weight are read.
            row_ids: (B,) ints in [0, 2**32): what a row's random numbers are keyed by; None: its
                number in the batch.
            callback: is called with a `StepOutput` after each step.
            options: fields of `GenerationConfig`, by the names Hugging Face gives them:
                max_new_tokens, num_beams, do_sample, top_p, return_dict_in_generate, ...

        Returns:
            sequences (B * num_return_sequences, T): the new tokens, without the start token, each
            row's end-of-sequence token kept and padding after it. With return_dict_in_generate a
            `GenerateOutput`.

        Raises ValueError, TypeError, IndexError: bad option or input, logits that are not finite.
        """
        return generate(
            [self],
            src,
            src_lengths,
            generation_config=generation_config,
            prefix_tokens=prefix_tokens,
            allowed_tokens=allowed_tokens,
            shortlist=shortlist,
            row_ids=row_ids,
            callback=callback,
            **options,
        )

    def score(
        self,
        src: Tensor,
        tgt: Tensor,
        src_lengths: Tensor | Sequence[int] | None = None,
        tgt_lengths: Tensor | Sequence[int] | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        shortlist: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        **options: Any,
    ) -> ScoreOutput:
        """Forced decoding: the log-probability of every token of given targets, as `generate` would
        report it.

        Args:
            src, src_lengths: as in `forward`.
            tgt: (B, T) token ids without the start token, such as `generate` returns.
            tgt_lengths: (B,); None: up to each row's first end-of-sequence token, or where it has
                none up to its last token that is not pad_token_id.
            generation_config: replaces the model's own.
            shortlist: as in `generate`; a target outside it has log-probability -inf.
            options: of `GenerationConfig` the special tokens, length_penalty, output_attentions.

        Raises ValueError, TypeError, IndexError: bad option or input, logits that are not finite.
        """
        return score(
            [self],
            src,
            tgt,
            src_lengths,
            tgt_lengths,
            generation_config=generation_config,
            shortlist=shortlist,
            **options,
        )
