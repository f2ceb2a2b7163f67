# SPDX-License-Identifier: MIT
"""What the native loop takes, and why not."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import torch

from seq2seq_ext import _backend
from seq2seq_ext.generation.config import GenerationConfig
from seq2seq_ext.generation.output import Callback
from seq2seq_ext.generation.predictor import Predictor

if TYPE_CHECKING:
    from seq2seq_ext.generation.ensemble import Ensemble
    from seq2seq_ext.nn.seq2seq import Seq2Seq

_DTYPES = {
    "cpu": (torch.float32, torch.float64, torch.bfloat16),
    "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
}

enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("native_decoding", default=True)
_DISABLED = "it is disabled"


def native_reason(
    model: Seq2Seq | Ensemble,
    generation_config: GenerationConfig | None = None,
    *,
    callback: Callback | None = None,
    **options: Any,
) -> str | None:
    """Why `generate` with these arguments, and `score`, would decode by the loop in Python, which
    is slower; None: they decode natively.

    Asked inside the autocast region, if there is one, in which they would be called. Where it is
    not None they warn (`BackendWarning`), once a process and reason.

    Raises TypeError, ValueError: no model, no config, or options that `generate` refuses.
    """
    from seq2seq_ext.generation.ensemble import Ensemble  # these import this module
    from seq2seq_ext.nn.seq2seq import Seq2Seq

    if not isinstance(model, (Seq2Seq, Ensemble)):
        raise TypeError(f"model: a Seq2Seq or an Ensemble, got {type(model).__name__}")
    config = generation_config or model.generation_config
    if not isinstance(config, GenerationConfig):
        raise TypeError(f"generation_config: a GenerationConfig, got {type(config).__name__}")
    config = config.replace(**options)
    if isinstance(model, Ensemble):
        predictor = Predictor(model.models, model.combine)
    else:
        predictor = Predictor([model])
    config.validate(predictor.decoders[0].vocab_size)
    return problem_of(predictor, config, callback)


def problem_of(
    predictor: Predictor, config: GenerationConfig, callback: Callback | None = None
) -> str | None:
    """Why the op does not serve this call; None: it does."""
    device = predictor.device.type
    if not enabled.get():
        return _DISABLED
    if device not in _DTYPES:
        return f"there is no native loop for {device} tensors"
    if (missing := _backend.problem_of(predictor.device)) is not None:
        return missing
    if torch.is_autocast_enabled(device):
        return f"autocast is on for {device}"
    for decoder, output in zip(predictor.decoders, predictor.outputs, strict=True):
        dtypes = {parameter.dtype for parameter in decoder.parameters()} | {output[0].dtype}
        if len(dtypes) > 1:
            return f"the decoder's weights are in {len(dtypes)} dtypes"
        if not dtypes <= set(_DTYPES[device]):
            return f"the decoder's weights are {dtypes.pop()}, on {device}"
        if (problem := _problem_of_decoder(decoder)) is not None:
            return problem
    return _problem_on_gpu(predictor, config, callback) if device == "cuda" else None


def warn_of_python_loop(predictor: Predictor, problem: str) -> None:
    """Says why decoding is slow, unless it is wanted so, or the ops say it (no library)."""
    if problem != _DISABLED and _backend.problem_of(predictor.device) is None:
        _backend.warn_of_python_loop(problem)


def _problem_of_decoder(decoder: torch.nn.Module) -> str | None:
    """Whether its step is another than the one the op knows, or there are hooks on the way."""
    from seq2seq_ext.nn.decoder import Decoder  # it imports this package

    names = ("step", "_step", "_read")
    if any(getattr(type(decoder), name) is not getattr(Decoder, name) for name in names):
        return f"the decoder is a {type(decoder).__name__} with a step of its own"
    if any(m._forward_hooks or m._forward_pre_hooks for m in decoder.modules()):
        return "a module of the decoder has forward hooks"
    return None


def _problem_on_gpu(
    predictor: Predictor, config: GenerationConfig, callback: Callback | None
) -> str | None:
    if callback is not None:  # the host would wait for each step, while the device is ahead of it
        return "on a GPU it calls no callback"
    if len(predictor.decoders) > 1:
        return "on a GPU it takes no ensemble"
    if predictor.by_source is not None:
        return "on a GPU it takes no shortlists of the rows' own"
    if config.output_scores:
        return "on a GPU it returns no output_scores"
    return None
