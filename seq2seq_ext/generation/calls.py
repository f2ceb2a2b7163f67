# SPDX-License-Identifier: MIT
"""The calls behind `Seq2Seq.generate` and `Seq2Seq.score`, for one model or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seq2seq_ext.generation.config import BEAM_SEARCH, SAMPLING, GenerationConfig
from seq2seq_ext.generation.constraints import Constraints
from seq2seq_ext.generation.native import Decode
from seq2seq_ext.generation.output import Callback, GenerateOutput, ScoreOutput
from seq2seq_ext.generation.predictor import Predictor
from seq2seq_ext.generation.scoring import Scoring, target_lengths
from seq2seq_ext.generation.search import Search
from seq2seq_ext.generation.support import problem_of, warn_of_python_loop

# Options of `GenerationConfig` that scoring reads.
SCORING = (
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "length_penalty",
    "output_attentions",
    "pad_token_id",
)

if TYPE_CHECKING:
    from seq2seq_ext.nn.seq2seq import Seq2Seq


@contextlib.contextmanager
def evaluation(models: Sequence[Seq2Seq]) -> Iterator[None]:
    """No gradients, dropout off; then back to the modes of before."""
    modes = [m for model in models for m in model.modules() if m.training]
    try:
        for model in models if modes else ():  # a walk over all modules, at every call
            model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module in modes:
            module.training = True


def generate(
    models: Sequence[Seq2Seq],
    src: Tensor,
    src_lengths: Tensor | Sequence[int] | None = None,
    *,
    combine: str = "probabilities",
    generation_config: GenerationConfig | None = None,
    callback: Callback | None = None,
    prefix_tokens: Any = None,
    allowed_tokens: Any = None,
    shortlist: Any = None,
    row_ids: Any = None,
    **options: Any,
) -> Tensor | GenerateOutput:
    """See `Seq2Seq.generate`."""
    config = (generation_config or models[0].generation_config).replace(**options)
    config.validate(models[0].decoder.vocab_size)
    _check_source("generate", src)
    _check_call(models, config, options, callback)
    with evaluation(models):
        constraints = Constraints.of(
            src.size(0),
            models[0].decoder.vocab_size,
            config,
            src.device,
            prefix_tokens=prefix_tokens,
            allowed_tokens=allowed_tokens,
            shortlist=shortlist,
            row_ids=row_ids,
        )
        predictor = Predictor(models, combine, constraints.shortlist)
        problem = problem_of(predictor, config, callback)
        if problem is None:
            found = Decode(predictor, config).generate(constraints, src, src_lengths, callback)
        else:
            warn_of_python_loop(predictor, problem)
            found = Search(predictor, config, constraints, callback).run(src, src_lengths)
    # Inference tensors could not be used in a later training step: hand out ordinary ones.
    copies = (None if t is None else t.clone() for t in found)
    found = GenerateOutput(*copies)  # type: ignore[arg-type]
    return found if config.return_dict_in_generate else found.sequences


def score(
    models: Sequence[Seq2Seq],
    src: Tensor,
    tgt: Tensor,
    src_lengths: Tensor | Sequence[int] | None = None,
    tgt_lengths: Tensor | Sequence[int] | None = None,
    *,
    combine: str = "probabilities",
    generation_config: GenerationConfig | None = None,
    shortlist: Any = None,
    **options: Any,
) -> ScoreOutput:
    """See `Seq2Seq.score`."""
    from seq2seq_ext.nn._checks import as_lengths, check_tokens  # it imports this package

    wrong = sorted(set(options) - set(SCORING))
    if wrong:
        raise TypeError(f"score: unknown option {', '.join(wrong)}; known are {', '.join(SCORING)}")
    vocab_size = models[0].decoder.vocab_size
    config = (generation_config or models[0].generation_config).replace(**options)
    config.validate(vocab_size)
    config.start_token_id  # noqa: B018  raises before any work is done
    _check_source("score", src)
    _check_attention("score", models, "output_attentions", config.output_attentions)
    check_tokens("score", "tgt", tgt, 2, models[0].decoder.embedding)
    if tgt.size(0) != src.size(0):
        raise ValueError(f"score: tgt must have the source's {src.size(0)} rows, got {tgt.size(0)}")
    if tgt_lengths is None:
        lengths = target_lengths(tgt, config)
    else:
        lengths = as_lengths("score", "tgt_lengths", tgt_lengths, tgt.size(0), tgt.device)
        if bool(((lengths < 0) | (lengths > tgt.size(1))).any()):
            raise ValueError(f"score: tgt_lengths must lie in [0, {tgt.size(1)}]")
    with evaluation(models):
        constraints = Constraints.of(
            src.size(0), vocab_size, config, src.device, shortlist=shortlist
        )
        predictor = Predictor(models, combine, constraints.shortlist)
        problem = problem_of(predictor, config)
        if problem is not None:
            warn_of_python_loop(predictor, problem)
        scoring = Decode if problem is None else Scoring
        found = scoring(predictor, config).score(src, src_lengths, tgt.long(), lengths)
    copies = (None if t is None else t.clone() for t in found)
    return ScoreOutput(*copies)  # type: ignore[arg-type]


def _check_source(where: str, src: object) -> None:
    if not isinstance(src, Tensor):
        raise TypeError(f"{where}: src must be a tensor of token ids, got {type(src).__name__}")
    if src.dim() != 2:
        raise ValueError(f"{where}: src must have shape (B, S), got {tuple(src.shape)}")


def _check_attention(where: str, models: Sequence[Seq2Seq], name: str, wanted: object) -> None:
    for model in models:
        if wanted and model.decoder.attention is None:
            raise ValueError(
                f"{where}: {name} needs a decoder with context 'attention', "
                f"got {model.decoder.context!r}"
            )


def _check_call(
    models: Sequence[Seq2Seq], config: GenerationConfig, options: dict[str, Any], callback: object
) -> None:
    """What the configuration cannot check by itself."""
    config.start_token_id  # noqa: B018  raises before any work is done
    if callback is not None and not callable(callback):
        raise TypeError(f"generate: callback must be callable, got {type(callback).__name__}")
    beams = config.num_beams > 1
    defaults = GenerationConfig()
    for names, read, mode in (
        (SAMPLING, config.do_sample, "do_sample"),
        (BEAM_SEARCH, beams, "num_beams above 1"),
    ):
        # Of the model's own configuration some options may wait for their time.
        for name in sorted(set(names) & set(options)):
            if not read and options[name] != getattr(defaults, name):
                raise ValueError(f"generate: {name} has no effect without {mode}")
    _check_attention("generate", models, "output_attentions", config.output_attentions)
    _check_attention("generate", models, "coverage_penalty", config.coverage_penalty and beams)
    if config.output_hidden_states and len(models) > 1:
        raise ValueError("generate: output_hidden_states is for one model, not for an ensemble")
