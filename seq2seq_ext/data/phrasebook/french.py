# SPDX-License-Identifier: MIT
"""French word forms: conjugation, agreement, contraction and elision."""

from __future__ import annotations

from .lexicon import H_ASPIRE, Adjective, Noun, Verb

VOWELS = frozenset("aeiouyàâéèêëîïôöùûüœæ")
ELIDED = frozenset({"je", "me", "te", "se", "le", "la", "ne", "de", "que"})

# Columns of every conjugation table: je, tu, il/elle, nous, ils/elles.
JE, TU, IL, NOUS, ILS = range(5)
FUTURE_ENDINGS = ("ai", "as", "a", "ons", "ont")
IMPARFAIT_ENDINGS = ("ais", "ais", "ait", "ions", "aient")
AVOIR = ("ai", "as", "a", "avons", "ont")
ETRE = ("suis", "es", "est", "sommes", "sont")
POUVOIR = ("peux", "peux", "peut", "pouvons", "peuvent")
VOULOIR = ("veux", "veux", "veut", "voulons", "veulent")
DEVOIR = ("dois", "dois", "doit", "devons", "doivent")

_POSSESSIVES = {  # masculine singular, feminine singular, plural
    "my": ("mon", "ma", "mes"),
    "your": ("ton", "ta", "tes"),
    "his": ("son", "sa", "ses"),
    "her": ("son", "sa", "ses"),
    "our": ("notre", "notre", "nos"),
    "their": ("leur", "leur", "leurs"),
}


def starts_with_vowel_sound(word: str) -> bool:
    """True where the word before is elided or takes its form before a vowel (h muet counts)."""
    word = word.lower()
    if word in H_ASPIRE:
        return False
    return word[0] in VOWELS or word[0] == "h"


def join(words: list[str]) -> str:
    """Joins words into a phrase, eliding "je", "le", "ne", ... before a vowel sound."""
    pieces = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ELIDED and following and starts_with_vowel_sound(following):
            pieces.append(word[:-1] + "'")
        else:
            pieces.append(word + " ")
    return "".join(pieces).strip()


def imparfait(verb: Verb, person: int) -> str:
    stem = verb.present[NOUS].removesuffix("ons")
    ending = IMPARFAIT_ENDINGS[person]
    if stem.endswith("ge") and ending.startswith("i"):  # mangeais, but mangions
        stem = stem[:-1]
    return stem + ending


def future(verb: Verb, person: int) -> str:
    return verb.future_stem + FUTURE_ENDINGS[person]


def agree(participle: str, gender: str, plural: bool) -> str:
    """Participle with the endings of its gender and number: venu, venue, venus, venues."""
    form = participle + ("e" if gender == "f" else "")
    return form if not plural or form.endswith("s") else form + "s"


def noun_form(noun: Noun, plural: bool) -> str:
    return noun.french[plural]


def article(kind: str, gender: str, plural: bool, following: str) -> list[str]:
    """Determiner words before `following`; "some" is the partitive or plural indefinite.

    kind: the, a, some, none-of (after a negation), this, or an English possessive.
    """
    vowel = starts_with_vowel_sound(following)
    if kind == "the":
        return ["les"] if plural else ["la" if gender == "f" else "le"]
    if kind == "a":
        return ["une" if gender == "f" else "un"]
    if kind == "none-of":
        return ["de"]
    if kind == "this":
        if plural:
            return ["ces"]
        return ["cette" if gender == "f" else "cet" if vowel else "ce"]
    masculine, feminine, many = _POSSESSIVES[kind]
    if plural:
        return [many]
    # "ma amie" is "mon amie": the masculine form stands before any vowel.
    return [masculine if gender == "m" or vowel else feminine]


def partitive(gender: str, following: str) -> list[str]:
    """du pain, de la soupe, de l'eau."""
    return after("de", article("the", gender, False, following), following)


def after(preposition: str, words: list[str], following: str = "") -> list[str]:
    """`preposition` ("à" or "de") before a noun phrase, contracted: au, aux, du, des."""
    contracted = {"à": ("au", "aux"), "de": ("du", "des")}
    first = words[0]
    second = words[1] if len(words) > 1 else following
    if preposition in contracted and first in ("le", "les"):
        if first == "les":
            return [contracted[preposition][1], *words[1:]]
        if not starts_with_vowel_sound(second):
            return [contracted[preposition][0], *words[1:]]
    return [preposition, *words]


def adjective_form(adjective: Adjective, gender: str, plural: bool, following: str = "") -> str:
    """Agreeing form; `following` is the noun it stands before, if it does ("un bel homme")."""
    if (
        adjective.before_vowel
        and gender == "m"
        and not plural
        and following
        and starts_with_vowel_sound(following)
    ):
        return adjective.before_vowel
    return adjective.form(gender, plural)
