# SPDX-License-Identifier: MIT
"""Encoder and decoder as one model: training forward and `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from seq2seq_ext.generation import GenerateOutput, GenerationConfig, generate
from seq2seq_ext.nn.decoder import Decoder, DecoderOutput
from seq2seq_ext.nn.encoder import Encoder, EncoderOutput


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
            **shared,
        )
        decoder = Decoder(
            tgt_vocab_size,
            embedding_size,
            hidden_size,
            encoder=encoder,
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

    def generate(
        self,
        src: Tensor,
        src_lengths: Tensor | Sequence[int] | None = None,
        *,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Decodes greedily, a whole batch at once, each row up to its own end-of-sequence token.

        Dropout is off whatever the module's mode. A row's tokens and scores are the same bits alone
        and in any batch (CPU library loaded).

        Args:
            src, src_lengths: as in `forward`.
            generation_config: replaces the model's own.
            options: fields of `GenerationConfig`, by the names Hugging Face gives them:
                max_new_tokens, min_new_tokens, eos_token_id, return_dict_in_generate,
                output_attentions, ...

        Returns:
            sequences (B, T): the new tokens, without the start token, each row's end-of-sequence
            token kept and padding after it. With return_dict_in_generate a `GenerateOutput`.

        Raises ValueError, TypeError, IndexError: bad option or input, logits that are not finite.
            NotImplementedError: an option of beam search or sampling.
        """
        return generate(self, src, src_lengths, generation_config=generation_config, **options)
