# SPDX-License-Identifier: MIT
"""Text to token ids and back, on the `tokenizers` library: word, character, whitespace, BPE."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as _Tokenizer

KINDS = ("word", "character", "whitespace", "bpe")
SPECIALS = ("<pad>", "<unk>", "<sos>", "<eos>")
PAD, UNK, SOS, EOS = range(4)

# Written on the side of a token that touched its neighbour in the text: "you." is "you", "￭.".
JOINER = "￭"


def _spaces() -> list[normalizers.Normalizer]:
    # \s includes the no-break spaces that French puts before "!" and "?".
    return [
        normalizers.NFC(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]


def _attached_punctuation() -> normalizers.Normalizer:
    """ "I love you ." is read as "I love you."; a comma inside "1 ,5" is left alone."""
    return normalizers.Replace(Regex(r" +(?=[.,!?;:…]+( |$))"), "")


def _word_boundaries() -> list[normalizers.Normalizer]:
    """Cuts words from punctuation, with joiners so that the text can be put together again.

    "t'aime" becomes "t'" + "aime": an apostrophe inside a word always touches what follows, so
    these need no joiner, and "aime" is one token wherever it stands.
    """
    return [
        normalizers.Replace("’", "'"),
        normalizers.Replace(Regex(r"(?<=\w)(?='(?!\w))"), f" {JOINER}"),  # dogs' -> dogs ￭'
        normalizers.Replace(Regex(r"(?<=\w')(?=\w)"), " "),
        normalizers.Replace(Regex(rf"(?<=\w)(?=[^\w\s'{JOINER}])"), f" {JOINER}"),
        normalizers.Replace(Regex(rf"(?<=[^\w\s'{JOINER}-])(?=\w)"), f"{JOINER} "),
    ]


def _join_words(tokens: Sequence[str]) -> str:
    text = " ".join(tokens)
    text = re.sub(r"(?<=\w') (?=\w)", "", text)
    return text.replace(f" {JOINER}", "").replace(f"{JOINER} ", "").replace(JOINER, "")


class Tokenizer:
    """A vocabulary and the way text is cut into its tokens.

    kind: "word" (words, elided words and punctuation; detokenised as it was written),
    "character", "whitespace" (what stands between spaces) or "bpe" (byte-pair merges of
    characters inside words). Ids 0..3 are always <pad>, <unk>, <sos>, <eos>.
    """

    def __init__(self, kind: str, tokenizer: _Tokenizer) -> None:
        self.kind = kind
        self._tokenizer = tokenizer
        self._words = tokenizer.get_vocab_size()

    @classmethod
    def train(
        cls,
        kind: str,
        texts: Iterable[str],
        *,
        vocab_size: int = 32_000,
        min_frequency: int = 1,
        lowercase: bool = False,
        attach_punctuation: bool = False,
    ) -> Tokenizer:
        """Learns the vocabulary of `texts`.

        vocab_size counts the four special tokens; rarer tokens than `min_frequency` are left out.
        attach_punctuation: spaces before closing punctuation do not count, so that text cut by
        another tokenizer ("I love you .") reads like any other. For the source side, as the
        spaces do not come back; kinds "word" and "bpe" only.

        Raises:
            ValueError: unknown kind, or a vocabulary too small for the special tokens.
        """
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        if vocab_size <= len(SPECIALS):
            raise ValueError(f"vocab_size: expected more than {len(SPECIALS)}, got {vocab_size}")
        if min_frequency < 1:
            raise ValueError(f"min_frequency: expected at least 1, got {min_frequency}")
        tokenizer = _build(kind, lowercase, attach_punctuation)
        make = trainers.BpeTrainer if kind == "bpe" else trainers.WordLevelTrainer
        trainer = make(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIALS),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(kind, tokenizer)

    @property
    def vocab_size(self) -> int:
        return self._words

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without <sos> and <eos>."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [item.ids for item in encoded]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens as stored, special ones included."""
        return [self._tokenizer.id_to_token(int(i)) or SPECIALS[UNK] for i in ids]

    def display(self, ids: Iterable[int]) -> list[str]:
        """The tokens as a reader wants to see them: without joiners, spaces made visible."""
        shown = [token.replace(JOINER, "") or token for token in self.tokens(ids)]
        return ["␣" if token == " " else token.replace("▁", "") or "▁" for token in shown]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` up to the first <eos>; <pad> and <sos> are left out."""
        kept = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, SOS):
                kept.append(int(i))
        if self.kind == "word":
            return _join_words(self.tokens(kept))
        if self.kind == "whitespace":
            return " ".join(self.tokens(kept))
        if self.kind == "character":
            return "".join(self.tokens(kept))
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def save(self, path: str | os.PathLike[str]) -> None:
        self._tokenizer.save(str(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str], kind: str) -> Tokenizer:
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is not a tokenizer or lacks the special tokens.
        """
        try:
            tokenizer = _Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except OSError:
            raise
        except Exception as error:  # the library raises bare Exception for bad content
            raise ValueError(f"{path} is not a tokenizer file: {error}") from None
        if [tokenizer.id_to_token(i) for i in range(len(SPECIALS))] != list(SPECIALS):
            raise ValueError(f"{path}: ids 0 to 3 are not {', '.join(SPECIALS)}")
        return cls(kind, tokenizer)


def _build(kind: str, lowercase: bool, attach_punctuation: bool) -> _Tokenizer:
    unknown = SPECIALS[UNK]
    model = models.BPE(unk_token=unknown) if kind == "bpe" else models.WordLevel({}, unknown)
    tokenizer = _Tokenizer(model)
    steps = _spaces()
    if lowercase:
        steps.append(normalizers.Lowercase())
    if attach_punctuation and kind in ("word", "bpe"):
        steps.append(_attached_punctuation())
    if kind == "word":
        steps += _word_boundaries()
    tokenizer.normalizer = normalizers.Sequence(steps)
    if kind == "character":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"."), "isolated")
    elif kind == "bpe":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")]
        )
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
