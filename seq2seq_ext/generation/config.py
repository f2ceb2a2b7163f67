# SPDX-License-Identifier: MIT
"""Options of decoding, by the names Hugging Face's `generate` gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

# Fields that only beam search or sampling read, and the values that ask for neither.
_GREEDY = {
    "num_beams": 1,
    "do_sample": False,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How `Seq2Seq.generate` decodes.

    Attributes:
        max_new_tokens: steps at most, end-of-sequence token included.
        min_new_tokens: end-of-sequence tokens are excluded from the choice, and from the
            probabilities, before so many tokens stand.
        eos_token_id: one id or several; None: every row runs to max_new_tokens.
        pad_token_id: fills finished rows; None: the first eos_token_id.
        suppress_tokens: ids that are never chosen (the unknown token, say); the probabilities are
            of the others.
        bos_token_id, decoder_start_token_id: the first input; the second has precedence.
        return_dict_in_generate: return a `GenerateOutput`, not the sequences alone.
        output_scores, output_attentions, output_hidden_states: keep these in the `GenerateOutput`.

    The other fields belong to beam search and sampling, which are not there yet: `generate` raises
    NotImplementedError unless they have the values below.
    """

    max_new_tokens: int = 100
    min_new_tokens: int = 0
    suppress_tokens: Sequence[int] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False
    num_beams: int = 1
    do_sample: bool = False
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        if self.eos_token_id is None:
            return ()
        if isinstance(self.eos_token_id, int):
            return (self.eos_token_id,)
        return tuple(self.eos_token_id)

    @property
    def start_token_id(self) -> int:
        for token in (self.decoder_start_token_id, self.bos_token_id):
            if token is not None:
                return token
        raise ValueError("generate: decoder_start_token_id or bos_token_id must be given")

    @property
    def fill_token_id(self) -> int:
        if self.pad_token_id is not None:
            return self.pad_token_id
        return self.eos_token_ids[0] if self.eos_token_ids else 0

    def replace(self, **options: Any) -> GenerationConfig:
        """A copy with some fields changed. Raises TypeError for an unknown one."""
        known = [field.name for field in dataclasses.fields(self)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(
                f"generate: unknown option {', '.join(unknown)}; known are {', '.join(known)}"
            )
        return dataclasses.replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain data fit for JSON: the fields that differ from their defaults."""
        out = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                out[field.name] = list(value) if isinstance(value, (tuple, list)) else value
        return out

    def validate(self, vocab_size: int) -> None:
        """Raises ValueError or TypeError where a field is out of range for this vocabulary."""
        _check_count("max_new_tokens", self.max_new_tokens, 1)
        _check_count("min_new_tokens", self.min_new_tokens, 0)
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"generate: min_new_tokens must be at most max_new_tokens ({self.max_new_tokens}), "
                f"got {self.min_new_tokens}"
            )
        tokens: list[tuple[str, Any]] = [("eos_token_id", token) for token in self.eos_token_ids]
        for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) is not None:
                tokens.append((name, getattr(self, name)))
        tokens += [("suppress_tokens", token) for token in self.suppress_tokens or ()]
        for name, token in tokens:
            _check_count(name, token, 0)
            if token >= vocab_size:
                raise ValueError(f"generate: {name} must lie in [0, {vocab_size}), got {token}")
        suppressed = set(self.suppress_tokens or ())
        if len(suppressed) >= vocab_size:
            raise ValueError("generate: suppress_tokens leaves no token to choose")
        if self.min_new_tokens > 0 and len(suppressed | set(self.eos_token_ids)) >= vocab_size:
            raise ValueError(
                "generate: min_new_tokens leaves no token to choose: all are eos_token_id"
            )

    def check_greedy(self) -> None:
        """Raises NotImplementedError where a field asks for beam search or sampling."""
        for name, value in _GREEDY.items():
            if getattr(self, name) != value:
                raise NotImplementedError(
                    f"generate: {name}={getattr(self, name)!r} is not supported: only "
                    f"greedy decoding is there yet ({name}={value!r})"
                )


def _check_count(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"generate: {name} must be an int, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"generate: {name} must be at least {low}, got {value}")
