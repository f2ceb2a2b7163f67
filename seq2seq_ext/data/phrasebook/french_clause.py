# SPDX-License-Identifier: MIT
"""Puts a clause into French."""

from __future__ import annotations

from . import french
from .clause import Clause, NounPhrase, Pronoun
from .lexicon import NUMBERS, Adjective, Idiom, Profession, Verb

_MODALS = {"can": french.POUVOIR, "must": french.DEVOIR, "want to": french.VOULOIR}
_NEGATIONS = {"not": "pas", "never": "jamais"}
_FREQUENCIES = {"often": "souvent", "always": "toujours"}
_QUESTIONS = {
    "yes-no": ["est-ce", "que"],
    "why": ["pourquoi", "est-ce", "que"],
    "where": ["où", "est-ce", "que"],
    "when": ["quand", "est-ce", "que"],
    "what": ["qu'est-ce", "que"],
    "who": [],
}


def noun_phrase(phrase: NounPhrase, *, negated: bool = False, generic: bool = False) -> list[str]:
    """Words of a noun phrase.

    negated: it is the object of a negated verb, so that "un", "du", "des" become "de".
    generic: it is the object of aimer or détester, where a bare noun takes "le", "la", "les".
    """
    noun, gender, plural = phrase.noun, phrase.gender, phrase.plural
    form = french.noun_form(noun, plural)
    core = [form]
    adjective = phrase.adjective
    if adjective is not None:
        before = adjective.place == "before"
        shape = french.adjective_form(adjective, gender, plural, form if before else "")
        core = [shape, form] if before else [form, shape]
    kind, first = phrase.determiner, core[0]
    if kind in NUMBERS:
        return [NUMBERS[kind], *core]
    if kind in ("a", "bare") and negated and not generic:
        return ["de", *core]
    if kind == "bare":
        if generic:
            return french.article("the", gender, plural, first) + core
        if not plural:
            return french.partitive(gender, first) + core
        # "des" weakens to "de" before an adjective: de petits chats.
        weak = adjective is not None and adjective.place == "before"
        return ["de" if weak else "des", *core]
    return french.article(kind, gender, plural, first) + core


def _person(clause: Clause) -> tuple[int, str, bool]:
    subject = clause.subject
    return subject.person, subject.gender, subject.plural


def _subject(clause: Clause) -> list[str]:
    subject = clause.subject
    return [subject.subject] if isinstance(subject, Pronoun) else noun_phrase(subject)


def _clitic(clause: Clause) -> list[str]:
    """The object pronoun that stands before the verb."""
    if not isinstance(clause.object, Pronoun) or clause.verb is None:
        return []
    direct = clause.verb.pattern == "direct"
    return [clause.object.direct if direct else clause.object.indirect]


def _participle(clause: Clause, verb: Verb) -> str:
    if "etre" in verb.flags:
        _, gender, plural = _person(clause)
        return french.agree(verb.participle, gender, plural)
    if isinstance(clause.object, Pronoun) and verb.pattern == "direct":
        # A direct object that stands before avoir + participle makes it agree: je l'ai vue.
        return french.agree(verb.participle, clause.object.gender, clause.object.plural)
    return verb.participle


def _adverb(clause: Clause) -> list[str]:
    if clause.negation:
        return [_NEGATIONS[clause.negation]]
    return [_FREQUENCIES[clause.frequency]] if clause.frequency else []


def _verb(clause: Clause, verb: Verb) -> list[str]:
    """[ne] [pronoun] verb [pas] ...; with a modal the pronoun stands before the infinitive."""
    person, _, _ = _person(clause)
    ne = ["ne"] if clause.negation else []
    clitic, adverb = _clitic(clause), _adverb(clause)
    if clause.modal:
        return [*ne, _MODALS[clause.modal][person], *adverb, *clitic, verb.infinitive]
    if clause.tense == "past" and "state" not in verb.flags:
        auxiliary = french.ETRE if "etre" in verb.flags else french.AVOIR
        return [*ne, *clitic, auxiliary[person], *adverb, _participle(clause, verb)]
    if clause.tense == "future":
        finite = french.future(verb, person)
    elif clause.tense in ("past", "used-to"):
        finite = french.imparfait(verb, person)
    else:
        finite = verb.present[person]
    return [*ne, *clitic, finite, *adverb]


def _state(clause: Clause, idiom: bool) -> list[str]:
    """être, or avoir for idioms ("to be hungry" is "avoir faim"), with its negation."""
    person, _, _ = _person(clause)
    if clause.tense == "present":
        finite = (french.AVOIR if idiom else french.ETRE)[person]
    elif clause.tense == "past":
        finite = ("av" if idiom else "ét") + french.IMPARFAIT_ENDINGS[person]
    else:
        finite = ("aur" if idiom else "ser") + french.FUTURE_ENDINGS[person]
    return [*(["ne"] if clause.negation else []), finite, *_adverb(clause)]


def _complement(clause: Clause) -> list[str]:
    _, gender, plural = _person(clause)
    complement = clause.complement
    very = ["très"] if clause.very else []
    if isinstance(complement, Idiom):
        return [*very, complement.french]
    if isinstance(complement, Profession):
        forms = complement.feminine if gender == "f" else complement.masculine
        return [forms[plural]]
    if isinstance(complement, Adjective):
        return [*very, french.adjective_form(complement, gender, plural)]
    return []


def _object(clause: Clause, verb: Verb) -> list[str]:
    if not isinstance(clause.object, NounPhrase):
        return []
    if verb.pattern == "indirect":
        words = noun_phrase(clause.object)
        return french.after("à", words)
    return noun_phrase(
        clause.object, negated=bool(clause.negation), generic="generic" in verb.flags
    )


def _order(clause: Clause, verb: Verb) -> list[str]:
    # The verbs used in orders share this form with "je": regarde, attends, suis.
    imperative = verb.present[french.JE]
    if clause.negation:
        return ["ne", *_clitic(clause), imperative, "pas"]
    if isinstance(clause.object, Pronoun):
        pronoun = _clitic(clause)[0]
        return [f"{imperative}-{'moi' if pronoun == 'me' else pronoun}"]
    return [imperative]


def realise(clause: Clause) -> str:
    """The French sentence, with " ?" for questions and no other punctuation."""
    verb = clause.verb
    if clause.mood == "order":
        assert verb is not None
        words = _order(clause, verb) + _object(clause, verb)
    else:
        words = [*_QUESTIONS.get(clause.mood, []), *_subject(clause)]
        if verb is None:
            words += _state(clause, isinstance(clause.complement, Idiom)) + _complement(clause)
        else:
            words += _verb(clause, verb) + _object(clause, verb)
    words += [phrase for _, phrase in clause.tail]
    text = french.join(words)
    text = text[0].upper() + text[1:]
    return text if clause.mood in ("statement", "order") else text + " ?"
