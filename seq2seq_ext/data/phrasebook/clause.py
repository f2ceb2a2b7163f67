# SPDX-License-Identifier: MIT
"""A clause before it is put into words: what both languages say, each in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field

from .lexicon import Adjective, Idiom, Noun, Profession, Verb


@dataclass(frozen=True)
class Pronoun:
    english: tuple[str, str]  # I, me
    subject: str  # je
    direct: str  # me
    indirect: str  # me
    stressed: str  # moi; also the form after an imperative, where there is one
    person: int  # column of the conjugation tables
    gender: str
    plural: bool


PRONOUNS = (
    Pronoun(("I", "me"), "je", "me", "me", "moi", 0, "m", False),
    Pronoun(("you", "you"), "tu", "te", "te", "toi", 1, "m", False),
    Pronoun(("he", "him"), "il", "le", "lui", "lui", 2, "m", False),
    Pronoun(("she", "her"), "elle", "la", "lui", "elle", 2, "f", False),
    Pronoun(("we", "us"), "nous", "nous", "nous", "nous", 3, "m", True),
    Pronoun(("they", "them"), "ils", "les", "leur", "eux", 4, "m", True),
)
I, YOU, HE, SHE, WE, THEY = PRONOUNS  # noqa: E741
WHO = Pronoun(("who", "whom"), "qui", "", "", "qui", 2, "m", False)


@dataclass(frozen=True)
class NounPhrase:
    noun: Noun
    determiner: str  # the, a, bare, this, two..six, my, your, ...
    plural: bool = False
    adjective: Adjective | None = None

    @property
    def person(self) -> int:
        return 4 if self.plural else 2

    @property
    def gender(self) -> str:
        return self.noun.gender


@dataclass(frozen=True)
class Clause:
    """subject + verb (None: to be) + object or complement + tail.

    mood: statement, order, or the question yes-no, why, where, when, what, who.
    tense: present, past, future, used-to. negation: "", not, never. frequency: "", often, always.
    tail: ready phrases (English, French) for place, company and time.
    """

    subject: Pronoun | NounPhrase
    verb: Verb | None = None
    object: Pronoun | NounPhrase | None = None
    complement: Adjective | Idiom | Profession | None = None
    very: bool = False
    tense: str = "present"
    modal: str = ""  # can, must, want to
    negation: str = ""
    frequency: str = ""
    mood: str = "statement"
    tail: tuple[tuple[str, str], ...] = field(default=())
