# SPDX-License-Identifier: MIT
"""Several models that decode as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from seq2seq_ext.generation.calls import generate, score
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.output import GenerateOutput, ScoreOutput
from seq2seq_ext.generation.predictor import COMBINATIONS

if TYPE_CHECKING:
    from seq2seq_ext.nn.seq2seq import Seq2Seq


class Ensemble:
    """`generate` and `score` of several models with the same vocabularies; they may differ in
    everything else. Attention weights are the mean of the models'.

    Args:
        models: of type `Seq2Seq`, on one device.
        combine: the mean of the models' "probabilities" or "log_probabilities". The latter is not
            normalized: the score of a sequence is the mean of the models' scores.
        generation_config: defaults of `generate`; None: the first model's.

    Raises TypeError, ValueError: an argument out of its range, vocabularies or devices that differ.
    """

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        *,
        combine: str = "probabilities",
        generation_config: GenerationConfig | None = None,
    ) -> None:
        from seq2seq_ext.nn.seq2seq import Seq2Seq  # it imports this package

        self.models, self.combine = list(models), combine
        for model in self.models:
            if not isinstance(model, Seq2Seq):
                raise TypeError(f"Ensemble: models must be Seq2Seq, got {type(model).__name__}")
        if not self.models:
            raise ValueError("Ensemble: models must hold at least one")
        if combine not in COMBINATIONS:
            raise ValueError(
                f"Ensemble: combine must be one of {', '.join(COMBINATIONS)}; got {combine!r}"
            )
        for what, values in (
            ("source vocabulary", [m.encoder.vocab_size for m in self.models]),
            ("target vocabulary", [m.decoder.vocab_size for m in self.models]),
            ("device", [m.decoder.embedding.weight.device for m in self.models]),
        ):
            if len(set(values)) > 1:
                raise ValueError(
                    f"Ensemble: models must share one {what}, got {', '.join(map(str, values))}"
                )
        self.generation_config = generation_config or self.models[0].generation_config

    def generate(
        self, src: Tensor, src_lengths: Any = None, **options: Any
    ) -> Tensor | GenerateOutput:
        """See `Seq2Seq.generate`."""
        options.setdefault("generation_config", self.generation_config)
        return generate(self.models, src, src_lengths, combine=self.combine, **options)

    def score(
        self,
        src: Tensor,
        tgt: Tensor,
        src_lengths: Any = None,
        tgt_lengths: Any = None,
        **options: Any,
    ) -> ScoreOutput:
        """See `Seq2Seq.score`."""
        options.setdefault("generation_config", self.generation_config)
        return score(
            self.models, src, tgt, src_lengths, tgt_lengths, combine=self.combine, **options
        )
