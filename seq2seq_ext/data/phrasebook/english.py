# SPDX-License-Identifier: MIT
"""Puts a clause into English."""

from __future__ import annotations

from .clause import WHO, Clause, I, NounPhrase, Pronoun
from .lexicon import Adjective, Idiom, Profession


def noun_phrase(phrase: NounPhrase) -> str:
    noun = phrase.noun.english[phrase.plural]
    core = f"{phrase.adjective.english} {noun}" if phrase.adjective else noun
    determiner = phrase.determiner
    if determiner == "bare":
        return core
    if determiner == "a" and core[0] in "aeiou":
        determiner = "an"
    if determiner == "this" and phrase.plural:
        determiner = "these"
    return f"{determiner} {core}"


def _subject(clause: Clause) -> str:
    subject = clause.subject
    return subject.english[0] if isinstance(subject, Pronoun) else noun_phrase(subject)


def _is_third(clause: Clause) -> bool:
    return clause.subject.person == 2


def _is_plural_or_you(clause: Clause) -> bool:
    return clause.subject.person in (1, 3, 4)


def _complement(clause: Clause) -> str:
    complement = clause.complement
    if isinstance(complement, Profession):
        plural = clause.subject.plural
        word = complement.english[plural]
        return word if plural else f"a {word}"
    if isinstance(complement, (Adjective, Idiom)):
        return ("very " if clause.very else "") + complement.english
    return ""


def _be(clause: Clause) -> list[str]:
    """[auxiliary, rest]: "is" + "never happy", "will" + "not be happy"."""
    adverb = clause.negation or clause.frequency
    if clause.tense == "future":
        return ["will", f"{adverb} be" if adverb else "be"]
    if clause.tense == "past":
        finite = "were" if _is_plural_or_you(clause) else "was"
    else:
        finite = "are" if _is_plural_or_you(clause) else "am" if clause.subject is I else "is"
    return [finite, adverb]


def _verb(clause: Clause) -> tuple[str, str]:
    """(auxiliary, rest), the auxiliary empty where a plain affirmative needs none."""
    assert clause.verb is not None
    verb, third = clause.verb, _is_third(clause)
    base, negative = verb.base, "not " if clause.negation == "not" else ""
    adverb = f"{clause.frequency} " if clause.frequency else ""
    if clause.negation == "never":
        adverb = "never "
    if clause.modal in ("can", "must"):
        return clause.modal, negative + base
    if clause.modal == "want to":
        want = f"want to {base}"
        if negative or clause.mood not in ("statement", "who"):
            return "does" if third else "do", negative + want
        return "", f"wants to {base}" if third else want
    if clause.tense == "future":
        return "will", negative + adverb + base
    if clause.tense == "used-to":
        return "", f"used to {base}"
    auxiliary = "did" if clause.tense == "past" else "does" if third else "do"
    if negative or clause.mood not in ("statement", "who"):
        return auxiliary, negative + adverb + base
    finite = verb.past if clause.tense == "past" else verb.third if third else base
    return "", f"{adverb}{finite}"


def _order(clause: Clause) -> list[str]:
    assert clause.verb is not None
    return [("Do not " if clause.negation else "") + clause.verb.base]


def realise(clause: Clause) -> str:
    """The English sentence, with "?" for questions and no other punctuation."""
    if clause.mood == "order":
        words = _order(clause)
    else:
        auxiliary, rest = _be(clause) if clause.verb is None else _verb(clause)
        if clause.mood == "statement" or clause.subject is WHO:
            words = [_subject(clause), auxiliary, rest]
        else:
            words = [auxiliary, _subject(clause), rest]
            if clause.mood != "yes-no":
                words.insert(0, clause.mood)
    words.append(_complement(clause))
    if isinstance(clause.object, Pronoun):
        words.append(clause.object.english[1])
    elif clause.object is not None:
        words.append(noun_phrase(clause.object))
    words += [english for english, _ in clause.tail]
    text = " ".join(word for word in words if word).replace("can not", "cannot")
    text = text[0].upper() + text[1:]
    return text if clause.mood in ("statement", "order") else text + "?"
