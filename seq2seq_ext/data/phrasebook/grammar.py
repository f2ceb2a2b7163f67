# SPDX-License-Identifier: MIT
"""Draws clauses that make sense: which verb takes which object, place, company and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from . import english, french, french_clause
from .clause import HE, PRONOUNS, SHE, THEY, WE, WHO, YOU, Clause, I, NounPhrase, Pronoun
from .lexicon import NUMBERS, Adjective, Noun, Verb, adjectives, idioms, nouns, professions, verbs

T = TypeVar("T")

POSSESSIVES = ("my", "your", "his", "her", "our", "their")
_KIN = frozenset({"family", "parent"})
_PREPOSITIONS = {"on": "sur", "under": "sous", "in": "dans", "with": "avec"}
_TIMES = {
    "present": (
        ("today", "aujourd'hui"),
        ("now", "maintenant"),
        ("every day", "tous les jours"),
        ("this evening", "ce soir"),
    ),
    "past": (("yesterday", "hier"), ("this morning", "ce matin")),
    "future": (("tomorrow", "demain"), ("this evening", "ce soir")),
}


def _pick(rng: Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def _of_kind(kinds: frozenset[str]) -> list[Noun]:
    return [noun for noun in nouns if noun.kinds & kinds]


def _attribute(rng: Random, noun: Noun) -> Adjective | None:
    if noun.kinds & _KIN:  # "beau-frère" and "belle-mère" are other people
        return None
    fitting = [a for a in adjectives if a.place != "-" and a.attribute_of & noun.kinds]
    return _pick(rng, fitting) if fitting and rng.random() < 0.3 else None


def _noun_phrase(rng: Random, kinds: frozenset[str], *, definite: bool = False) -> NounPhrase:
    """A noun of one of `kinds` with a determiner that goes with it.

    definite: only the, this and possessives, not "a dog", "two dogs", "bread", "apples".
    """
    noun = _pick(rng, _of_kind(kinds))
    kin = noun.kinds & _KIN
    determiners = [] if kin else ["the", "the", "this"]
    if "own" in noun.kinds:
        determiners += ["own", "own"]
    if noun.countable and not definite and not kin:
        determiners += ["a", "a", "number"]
    if not definite and not kin:
        determiners += ["bare", "bare"]
    determiner = _pick(rng, determiners)
    plural = noun.countable and rng.random() < 0.35
    if determiner == "own":
        determiner = _pick(rng, POSSESSIVES)
    elif determiner == "number":
        determiner, plural = _pick(rng, list(NUMBERS)), True
    elif determiner == "a":
        plural = False
    elif determiner == "bare":
        plural = noun.countable
    if "parent" in noun.kinds:
        plural = False
    return NounPhrase(noun, determiner, plural, _attribute(rng, noun))


def _person_subject(rng: Random) -> Pronoun | NounPhrase:
    if rng.random() < 0.7:
        return _pick(rng, PRONOUNS)
    return _noun_phrase(rng, frozenset({"person"}), definite=True)


def _subject(rng: Random, verb: Verb) -> Pronoun | NounPhrase:
    if "beast" in verb.flags and rng.random() < 0.15:
        return _noun_phrase(rng, frozenset({"animal"}), definite=True)
    return _person_subject(rng)


def _other_pronoun(rng: Random, subject: object) -> Pronoun:
    """A pronoun for someone else: not "I ... me", "I ... us", "we ... me"."""
    if subject in (I, WE):
        return _pick(rng, [p for p in PRONOUNS if p not in (I, WE)])
    return _pick(rng, [p for p in PRONOUNS if p is not subject or p in (HE, SHE, THEY)])


def _object(rng: Random, verb: Verb, subject: object) -> Pronoun | NounPhrase | None:
    if verb.pattern in ("none", "place"):
        return None
    people = verb.pattern == "indirect" or "person" in verb.objects
    if verb.pattern in ("direct", "indirect") and people and rng.random() < 0.6:
        return _other_pronoun(rng, subject)
    if "generic" in verb.flags:
        kinds = verb.objects
        noun = _pick(rng, _of_kind(kinds))
        if "person" not in noun.kinds:
            return NounPhrase(noun, "bare", noun.countable)
        return _noun_phrase(rng, frozenset({"person"}), definite=True)
    phrase = _noun_phrase(rng, verb.objects, definite="definite" in verb.flags)
    if "kin" in verb.flags and "family" in phrase.noun.kinds:
        determiner = _pick(rng, ("a", *NUMBERS))
        return NounPhrase(phrase.noun, determiner, determiner != "a")
    return phrase


def _place(rng: Random, verb: Verb) -> tuple[str, str] | None:
    """A place the verb goes with: to the market, at the market, from the market."""
    for flag, preposition in (("to", "à"), ("at", "à"), ("from", "de")):
        if flag in verb.flags:
            phrase = NounPhrase(_pick(rng, _of_kind(frozenset({"place"}))), "the")
            words = french.after(preposition, french_clause.noun_phrase(phrase))
            return f"{flag} {english.noun_phrase(phrase)}", french.join(words)
    return None


def _company(rng: Random, subject: object) -> tuple[str, str]:
    """with him, with my brother."""
    if rng.random() < 0.7:
        pronoun = _other_pronoun(rng, subject)
        return f"with {pronoun.english[1]}", f"avec {pronoun.stressed}"
    phrase = _noun_phrase(rng, frozenset({"person"}), definite=True)
    words = french.join(["avec", *french_clause.noun_phrase(phrase)])
    return f"with {english.noun_phrase(phrase)}", words


def _daily(verb: Verb, phrase: object) -> bool:
    """Whether one can do this every day: not to one or to these particular things."""
    if isinstance(phrase, NounPhrase) and phrase.determiner not in ("bare", "the", *POSSESSIVES):
        return False
    return "once" not in verb.flags


def _tail(
    rng: Random, verb: Verb, subject: object, time: str, phrase: object
) -> tuple[tuple[str, str], ...]:
    """What may follow: a place or company, and a time."""
    tail = []
    place = _place(rng, verb)
    if place and (verb.pattern == "place" or rng.random() < 0.5):
        tail.append(place)
    elif "with" in verb.flags and rng.random() < 0.4:
        tail.append(_company(rng, subject))
    if time and "state" not in verb.flags and rng.random() < 0.2:
        when = _pick(rng, _TIMES[time])
        if when[0] != "every day" or _daily(verb, phrase):
            tail.append(when)
    return tuple(tail)


def _verb_clause(rng: Random) -> Clause:
    verb = _pick(rng, verbs)
    subject = _subject(rng, verb)
    state = "state" in verb.flags
    tense = _pick(rng, ("present", "present", "past", "past", "future", "future", "used-to"))
    if tense == "past" and verb.past is None:
        tense = "present"
    modal, negation, frequency = "", "", ""
    draw = rng.random()
    if not state and tense == "present" and draw < 0.4:
        modal = _pick(rng, ("can", "must", "want to"))
    elif not state and tense == "present" and draw < 0.5:
        frequency = _pick(rng, ("often", "always"))
    if tense != "used-to" and not frequency and rng.random() < 0.3:
        negation = "never" if tense in ("present", "future") and not modal else "not"
        negation = negation if rng.random() < 0.3 else "not"
    time = "" if tense == "used-to" or frequency or negation == "never" else tense
    target = _object(rng, verb, subject)
    tail = _tail(rng, verb, subject, time, target)
    return Clause(subject, verb, target, tense=tense, modal=modal, negation=negation,
                  frequency=frequency, tail=tail)  # fmt: skip


def _question(rng: Random) -> Clause:
    """Turns a statement into a question, where the statement can be asked."""
    while True:
        clause = _verb_clause(rng)
        verb = clause.verb
        assert verb is not None
        if clause.tense == "used-to" or clause.frequency or clause.negation == "never":
            continue
        mood = _pick(rng, ("yes-no", "yes-no", "yes-no", "why", "where", "when", "what", "who"))
        if mood == "who":
            if clause.negation or verb.pattern == "none":
                continue
            tail = _tail(rng, verb, WHO, clause.tense, clause.object)
            return replace(clause, mood=mood, subject=WHO, tail=tail)
        if mood in ("where", "when", "what"):
            if clause.negation or (mood == "where" and "where" not in verb.flags):
                continue
            if mood == "what" and verb.pattern != "things":
                continue
            if mood == "when" and "state" in verb.flags:
                continue
            keep_tail = mood == "when" and verb.pattern == "place"
            tail = tuple(clause.tail[:1]) if keep_tail else ()
            asked = None if mood == "what" else clause.object
            return replace(clause, mood=mood, tail=tail, object=asked)
        return replace(clause, mood=mood)


def _order(rng: Random) -> Clause:
    verb = _pick(rng, [v for v in verbs if "order" in v.flags])
    negation = "not" if rng.random() < 0.35 else ""
    # "Help us" from the speaker: every pronoun but "you" can follow.
    return Clause(YOU, verb, _object(rng, verb, YOU), negation=negation, mood="order")


def _state_clause(rng: Random) -> Clause:
    """I am happy, she was a singer, they will be hungry, is the car red?"""
    draw = rng.random()
    tense = _pick(rng, ("present", "present", "past", "future"))
    negation = "not" if rng.random() < 0.3 else ""
    mood = "yes-no" if rng.random() < 0.25 else "statement"
    if draw < 0.5:
        adjective = _pick(rng, [a for a in adjectives if a.predicate_of])
        people = bool(adjective.predicate_of & {"person", "adult"})
        if people and rng.random() < 0.6:
            subject: Pronoun | NounPhrase = _pick(rng, PRONOUNS)
        else:
            phrase = _noun_phrase(rng, adjective.predicate_of, definite=True)
            subject = NounPhrase(phrase.noun, phrase.determiner, phrase.plural)
        return Clause(subject, None, None, adjective, rng.random() < 0.25, tense,
                      negation=negation, mood=mood)  # fmt: skip
    if draw < 0.75:
        idiom = _pick(rng, idioms)
        subject = _pick(rng, PRONOUNS)
        if rng.random() < 0.4:
            phrase = _noun_phrase(rng, idiom.said_of, definite=True)
            subject = NounPhrase(phrase.noun, phrase.determiner, phrase.plural)
        very = idiom.english in ("hungry", "thirsty", "cold") and rng.random() < 0.25
        return Clause(subject, None, None, idiom, very, tense, negation=negation, mood=mood)
    return Clause(_person_subject(rng), None, None, _pick(rng, professions), tense=tense,
                  negation=negation, mood=mood)  # fmt: skip


def _location(rng: Random, kinds: str) -> tuple[str, str]:
    """on the table, in the kitchen; for people also at the station."""
    if kinds == "person" and rng.random() < 0.7:
        phrase = NounPhrase(_pick(rng, _of_kind(frozenset({"place"}))), "the")
        words = french.after("à", french_clause.noun_phrase(phrase))
        return f"at {english.noun_phrase(phrase)}", french.join(words)
    kind, preposition = ("room", "in")
    if kinds != "person" and rng.random() < 0.6:
        kind, preposition = "top", _pick(rng, ("on", "under"))
    phrase = NounPhrase(_pick(rng, _of_kind(frozenset({kind}))), "the")
    words = [_PREPOSITIONS[preposition], *french_clause.noun_phrase(phrase)]
    return f"{preposition} {english.noun_phrase(phrase)}", french.join(words)


def _where_it_is(rng: Random) -> Clause:
    kinds = _pick(rng, ("person", "small", "pet"))
    subject: Pronoun | NounPhrase
    if kinds == "person":
        subject = _person_subject(rng)
    else:
        phrase = _noun_phrase(rng, frozenset({kinds}), definite=True)
        subject = NounPhrase(phrase.noun, phrase.determiner, phrase.plural)
    return Clause(
        subject,
        tense=_pick(rng, ("present", "present", "past", "future")),
        negation="not" if rng.random() < 0.25 else "",
        mood="yes-no" if rng.random() < 0.25 else "statement",
        tail=(_location(rng, kinds),),
    )


def _there_is(rng: Random) -> tuple[str, str]:
    """There is a cat in the garden: il y a un chat dans le jardin."""
    kinds = _pick(rng, ("small", "pet"))
    noun = _pick(rng, _of_kind(frozenset({kinds})))
    determiner = _pick(rng, ("a", *NUMBERS))
    phrase = NounPhrase(noun, determiner, determiner != "a", _attribute(rng, noun))
    place_english, place_french = _location(rng, kinds)
    verb = "are" if phrase.plural else "is"
    words = ["il", "y", "a", *french_clause.noun_phrase(phrase), place_french]
    sentence = french.join(words)
    return (
        f"There {verb} {english.noun_phrase(phrase)} {place_english}",
        sentence[0].upper() + sentence[1:],
    )


# Share of each kind of sentence in the corpus.
_CLAUSES: tuple[tuple[float, Callable[[Random], Clause]], ...] = (
    (0.58, _verb_clause),
    (0.73, _question),
    (0.79, _order),
    (0.91, _state_clause),
    (0.97, _where_it_is),
)


def draw_pair(rng: Random) -> tuple[str, str]:
    """One English sentence and its French translation."""
    draw = rng.random()
    for limit, make in _CLAUSES:
        if draw < limit:
            clause = make(rng)
            return english.realise(clause), french_clause.realise(clause)
    return _there_is(rng)
