# SPDX-License-Identifier: MIT
"""Options of decoding, by the names Hugging Face's `generate` gives them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

# Options that are read only by sampling, and only by beam search.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
BEAM_SEARCH = ("early_stopping", "coverage_penalty", "num_beam_groups", "diversity_penalty")

MAX_SEED = 2**64 - 1
MAX_COUNT = 2**31 - 1
# Of one source: samples, beams, and beams times the candidates that each of them brings.
MAX_SAMPLES, MAX_BEAMS = 2**16, 2**12
MAX_CANDIDATES = 2**24


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How `Seq2Seq.generate` decodes: greedily, or by sampling, or by beam search.

    The order in which options act is written down in `seq2seq_ext.generation`.

    Attributes:
        max_new_tokens: steps at most, end-of-sequence token included; at least 1.
        min_new_tokens: end-of-sequence tokens are banned before so many tokens stand.
        eos_token_id: one id or several; None: every row runs to max_new_tokens.
        pad_token_id: fills finished rows; None: the first eos_token_id.
        bos_token_id, decoder_start_token_id: the first input; the second has precedence.
        suppress_tokens: ids that are never chosen (the unknown token, say).
        bad_words_ids: phrases of one or more ids that are never completed.
        no_repeat_ngram_size: no n-gram of new tokens occurs twice in a row; 0: off.
        repetition_penalty: divides a positive logit, and multiplies a negative one, of a token that
            the row holds already; 1: off.

        do_sample: draw each token at random.
        num_return_sequences: samples of each source, at most 2**16; or the n best of beam search.
        temperature: divides the logits.
        top_k, top_p, min_p: which tokens can be drawn: see `processors.truncate`. top_k None or 0,
            top_p 1 and min_p 0 or None leave out none.
        seed: of the draws; None: taken from torch's default generator.

        num_beams: above 1: beam search, which keeps so many hypotheses; at most 2**12, and times
            the tokens that each proposes (num_beams (1 + end-of-sequence ids), or all) 2**24.
        length_penalty: finished hypotheses are ranked by their score over length**length_penalty.
        early_stopping: when a source is done. True: as soon as num_beams hypotheses are finished;
            False: when, besides, no running hypothesis would rank before the worst of them if it
            ended now; "never": when none can any more.
        coverage_penalty: weight of the penalty for source positions that got little attention (Wu
            et al. 2016): sum over s of log min(1, sum over t of a_ts), added to a hypothesis' rank.
        num_beam_groups: the beams search in so many groups, each with its own hypotheses.
        diversity_penalty: is taken from a token's score for each earlier group's beam that picks
            the same token at the same step (Vijayakumar et al. 2018).

        return_dict_in_generate: return a `GenerateOutput`, not the sequences alone.
        output_scores, output_attentions, output_hidden_states: keep these in the `GenerateOutput`.
    """

    max_new_tokens: int = 100
    min_new_tokens: int = 0
    suppress_tokens: Sequence[int] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    bos_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    do_sample: bool = False
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    min_p: float | None = None
    seed: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    coverage_penalty: float = 0.0
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False

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

    @property
    def banned_token_ids(self) -> tuple[int, ...]:
        """suppress_tokens, and the bad words of one token: ascending, each once."""
        words = [word[0] for word in self.bad_words_ids or () if len(word) == 1]
        return tuple(sorted({*(self.suppress_tokens or ()), *words}))

    @property
    def slots(self) -> int:
        """Rows that are decoded for each source: beams or samples."""
        if self.num_beams > 1:
            return self.num_beams
        return self.num_return_sequences

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
                out[field.name] = _plain(value)
        return out

    def validate(self, vocab_size: int) -> None:
        """Raises ValueError or TypeError where a field is out of range for this vocabulary, or
        fields contradict each other."""
        for name, low in _COUNTS.items():
            _check_count(name, getattr(self, name), low)
        for name, bounds in _NUMBERS.items():
            _check_number(name, getattr(self, name), *bounds, above=name in _ABOVE)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise _wrong_type(name, "a bool", getattr(self, name))
        if self.top_k is not None:
            _check_count("top_k", self.top_k, 0)
        if self.min_p is not None:
            _check_number("min_p", self.min_p, 0, 1)
        if self.seed is not None:
            _check_count("seed", self.seed, 0, MAX_SEED)
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(
                "generate: early_stopping must be True, False or 'never', "
                f"got {self.early_stopping!r}"
            )
        self._check_tokens(vocab_size)
        self._check_together()
        self._check_size(vocab_size)

    def _check_tokens(self, vocab_size: int) -> None:
        tokens = [("eos_token_id", token) for token in _ids("eos_token_id", self.eos_token_ids)]
        for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) is not None:
                tokens.append((name, getattr(self, name)))
        suppressed = _ids("suppress_tokens", self.suppress_tokens or ())
        tokens += [("suppress_tokens", token) for token in suppressed]
        for word in _ids("bad_words_ids", self.bad_words_ids or ()):
            if not _ids("bad_words_ids", word):
                raise ValueError("generate: bad_words_ids must hold no empty phrase")
            tokens += [("bad_words_ids", token) for token in word]
        for name, token in tokens:
            _check_count(name, token, 0)
            if token >= vocab_size:
                raise ValueError(f"generate: {name} must lie in [0, {vocab_size}), got {token}")
        banned = set(self.banned_token_ids)
        if len(banned) >= vocab_size:
            raise ValueError("generate: suppress_tokens leaves no token to choose")
        if self.min_new_tokens > 0 and len(banned | set(self.eos_token_ids)) >= vocab_size:
            raise ValueError(
                "generate: min_new_tokens leaves no token to choose: all are eos_token_id"
            )

    def _check_together(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"generate: min_new_tokens must be at most max_new_tokens ({self.max_new_tokens}), "
                f"got {self.min_new_tokens}"
            )
        try:
            norm = float(self.max_new_tokens) ** abs(self.length_penalty)
        except OverflowError:
            norm = math.inf
        if norm > 1e100:
            raise ValueError(
                "generate: length_penalty must keep max_new_tokens ** length_penalty under 1e100, "
                f"got {self.length_penalty}"
            )
        if self.num_beams > 1 and self.do_sample:
            raise ValueError("generate: num_beams above 1 and do_sample exclude each other")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise ValueError(
                "generate: num_return_sequences must be at most num_beams "
                f"({self.num_beams}) unless do_sample is set, got {self.num_return_sequences}"
            )
        if self.num_beams % self.num_beam_groups:
            raise ValueError(
                f"generate: num_beam_groups must divide num_beams ({self.num_beams}), "
                f"got {self.num_beam_groups}"
            )
        if (self.num_beam_groups > 1) != (self.diversity_penalty > 0):
            raise ValueError(
                "generate: num_beam_groups above 1 and diversity_penalty above 0 go together, "
                f"got {self.num_beam_groups} and {self.diversity_penalty}"
            )

    def candidates(self, vocab_size: int) -> int:
        """How many tokens each beam proposes at a step. A group takes the best k(1 + eos ids), for
        that many may end their hypothesis; other groups' beams may move some behind others."""
        width = self.num_beams // self.num_beam_groups
        most = width * (1 + len(self.eos_token_ids)) + self.num_beams - width
        return min(most, vocab_size)

    def _check_size(self, vocab_size: int) -> None:
        """Refuses what would need more memory than machines have."""
        if self.num_beams == 1 and self.num_return_sequences > MAX_SAMPLES:
            raise ValueError(
                f"generate: num_return_sequences must be at most {MAX_SAMPLES} for a source, "
                f"got {self.num_return_sequences}; for more repeat the source, with row_ids"
            )
        if self.num_beams > MAX_BEAMS:
            raise ValueError(
                f"generate: num_beams must be at most {MAX_BEAMS}, got {self.num_beams}"
            )
        each = self.candidates(vocab_size)
        if self.num_beams > 1 and self.num_beams * each > MAX_CANDIDATES:
            raise ValueError(
                f"generate: num_beams must be fewer: {self.num_beams} beams with {each} candidates "
                f"each are more than {MAX_CANDIDATES} of a source at every step"
            )


# Whole numbers with their least values; numbers with their bounds; flags.
_COUNTS = {
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "num_beams": 1,
    "num_beam_groups": 1,
}
_NUMBERS = {
    "repetition_penalty": (0.0, math.inf),
    "temperature": (0.0, math.inf),
    "top_p": (0, 1),
    "length_penalty": (-math.inf, math.inf),
    "coverage_penalty": (0, math.inf),
    "diversity_penalty": (0, math.inf),
}
_ABOVE = ("repetition_penalty", "temperature")  # the lower bound itself is excluded
_FLAGS = (
    "do_sample",
    "return_dict_in_generate",
    "output_scores",
    "output_attentions",
    "output_hidden_states",
)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _wrong_type(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"generate: {name} must be {expected}, got {type(value).__name__}")


def _ids(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong_type(name, "a sequence of ids", value)
    return value


def _check_count(name: str, value: object, low: int, high: int = MAX_COUNT) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, "an int", value)
    if value < low:
        raise ValueError(f"generate: {name} must be at least {low}, got {value}")
    if value > high:
        raise ValueError(f"generate: {name} must be at most {high}, got {value}")


def _check_number(
    name: str, value: object, low: float, high: float, *, above: bool = False
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(name, "a number", value)
    if math.isfinite(value) and (low < value if above else low <= value) and value <= high:
        return
    if high < math.inf:
        expected = f"lie in [{low}, {high}]"
    elif low > -math.inf:
        expected = f"be finite and {'greater than' if above else 'at least'} {low:g}"
    else:
        expected = "be finite"
    raise ValueError(f"generate: {name} must {expected}, got {value}")
