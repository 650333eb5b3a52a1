"""Makes questions from captions by rule, as MSRVTT-QA was made of MSR-VTT's.

A caption is read as one clause: a subject, perhaps with modifiers, a verb of a known list, an object and
phrases with prepositions. "a man is playing a guitar in a kitchen" gives

    who is playing a guitar?                man         the subject, if it is a person; else "what is …?"
    what is a man playing?                  guitar      the object; "who …?" if that is a person
    what is a man doing?                    play        the verb
    where is a man playing a guitar?        kitchen     the first phrase that names a place
    how many … are …? how many … is …?      two         a subject or an object with a number

An intransitive verb gives the noun of its phrase instead of an object: "what is a man sitting on?" chair.
Answers are single words, nouns in the singular and verbs as in a dictionary. A caption that is not read so
gives nothing, and no question contains its own answer. There is no dictionary of English behind the rules, so
some questions read badly; all are made in the same way, for training and for measuring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from model.data.question_words import (
    ADVERBS,
    BARE_OBJECTS,
    BREAKS,
    COLOURS,
    COMPOUND_PREPOSITIONS,
    COMPOUNDS,
    DETERMINERS,
    GERUND_OF,
    GERUNDS,
    GROUPS,
    MEASURES,
    MEDIA,
    NUMBERS,
    PARTICLES,
    PEOPLE,
    PLACE_PREPOSITIONS,
    PLACES,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    THIRD_PERSONS,
    UNASKED,
    VERBS,
    is_plural,
    singular,
)

_TOKEN = re.compile(r"[a-z]+(?:[-'][a-z]+)*|[0-9]+|[,.;!?]")
_LEAD_IN = re.compile(r"^(?:there (?:is|are|s)|this is|here is)\b ?")
_POSSESSIVE = re.compile(r"\b(?!(?:he|she|that|who|what|there|here)\b)([a-z]+) s\b")
_COLOURS = "|".join(sorted(COLOURS))
#: compound prepositions, and colours such as "black and white", which are read as one word
_JOINED = re.compile(rf"\b(?:{'|'.join(COMPOUNDS)}|(?:{_COLOURS})(?: and (?:{_COLOURS}))+)\b")
_HYPHENS = re.compile(
    rf"\b(?:{'|'.join(sorted(COMPOUND_PREPOSITIONS))}|(?:{_COLOURS})(?:-and-(?:{_COLOURS}))+)\b"
)
_MOST_WORDS = 4
_MOST_MODIFIERS = 9


@dataclass(frozen=True)
class Question:
    """A question and its answer of one word."""

    question: str
    answer: str


@dataclass(frozen=True)
class _Noun:
    """A noun phrase: its words as they stand, the head among them, and its number."""

    words: tuple[str, ...]
    head: str
    number: str | None
    plural: bool

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def counted(self) -> str:
        """The phrase without its number, as "how many" asks for it."""
        return " ".join(self.words[1:])

    @property
    def askable(self) -> bool:
        return self.head not in UNASKED and self.head not in PRONOUNS

    @property
    def person(self) -> bool:
        return singular(self.head) in PEOPLE


@dataclass(frozen=True)
class _Phrase:
    preposition: str
    noun: _Noun

    @property
    def text(self) -> str:
        return f"{self.preposition} {self.noun.text}"

    @property
    def place(self) -> bool:
        named = singular(self.noun.head) in PLACES or self.noun.head in PLACES
        return self.preposition in PLACE_PREPOSITIONS and named


@dataclass(frozen=True)
class _Clause:
    subject: _Noun
    verb: str
    particle: str
    object: _Noun | None
    phrases: tuple[_Phrase, ...]

    @property
    def aux(self) -> str:
        return "are" if self.subject.plural else "is"

    @property
    def action(self) -> str:
        """The verb with its particle, such as "climbing up"."""
        return " ".join(filter(None, (GERUND_OF[self.verb], self.particle)))

    @property
    def whole(self) -> str:
        """The action with its object."""
        return self.action if self.object is None else f"{self.action} {self.object.text}"


def make_questions(caption: str) -> tuple[Question, ...]:
    """The questions of one caption, in a fixed order; none if the rules do not read it."""
    clause = _read(_tokens(caption))
    if clause is None:
        return ()
    made = dict.fromkeys(Question(_parted(q.question), q.answer) for q in _questions(clause))
    return tuple(question for question in made if not _tells(question))


def _parted(text: str) -> str:
    """A text without the hyphens of words that were read as one."""
    return _HYPHENS.sub(lambda found: found[0].replace("-", " "), text)


def _tells(question: Question) -> bool:
    """Whether a question contains its own answer, in any form."""
    words = _TOKEN.findall(question.question)
    return question.answer in {form for word in words for form in (singular(word), GERUNDS.get(word))}


def _tokens(caption: str) -> list[str]:
    text = _LEAD_IN.sub("", " ".join(_TOKEN.findall(caption.lower())))
    # Many captions of MSR-VTT have a space in place of an apostrophe.
    text = _POSSESSIVE.sub(lambda found: "its" if found[1] == "it" else f"{found[1]}'s", text)
    return _JOINED.sub(lambda found: found[0].replace(" ", "-"), text).split()


def _questions(clause: _Clause) -> Iterator[Question]:
    subject, found = clause.subject, clause.object
    first = clause.phrases[0] if clause.phrases and found is None else None
    rest = clause.whole if first is None else f"{clause.whole} {first.text}"
    if subject.number is None and "and" not in subject.words:
        yield Question(f"{'who' if subject.person else 'what'} is {rest}?", singular(subject.head))
    asked = f"{clause.aux} {subject.text} {clause.action}"
    if found is not None and found.askable:
        yield Question(f"{'who' if found.person else 'what'} {asked}?", singular(found.head))
        if found.number is not None:
            yield Question(f"how many {found.counted} {asked}?", found.number)
    if first is not None and first.noun.askable and not first.place and first.preposition != "of":
        word = "who" if first.noun.person else "what"
        yield Question(f"{word} {asked} {first.preposition}?", singular(first.noun.head))
    if clause.verb != "do":
        yield Question(f"what {clause.aux} {subject.text} doing?", clause.verb)
    if subject.number is not None:
        yield Question(f"how many {subject.counted} are {clause.whole}?", subject.number)
    place = next((phrase for phrase in clause.phrases if phrase.place), None)
    if place is not None:
        rest = clause.whole if place is first else rest
        yield Question(f"where {clause.aux} {subject.text} {rest}?", singular(place.noun.head))


def _read(tokens: list[str]) -> _Clause | None:
    subject, at = _subject(tokens)
    if subject is None:
        return None
    verb, at = _verb(tokens, at, subject)
    if verb is None:
        return None
    particle = ""
    if at < len(tokens) and tokens[at] in PARTICLES:
        # "climbing up a wall" has a phrase, "cleaning up" a particle.
        following = _noun(tokens, at + 1)[0]
        if following is None or tokens[at] not in PREPOSITIONS:
            particle, at = tokens[at], at + 1
    found: _Noun | None = None
    if at < len(tokens) and tokens[at] in PRONOUNS:
        found, at = _Noun((tokens[at],), tokens[at], None, False), at + 1
    elif at < len(tokens) and tokens[at] not in PREPOSITIONS:
        noun, after = _noun(tokens, at)
        determined = tokens[at] in DETERMINERS or tokens[at] in NUMBERS
        if noun is not None and (determined or noun.plural or verb in BARE_OBJECTS):
            found, at = noun, after
    return _Clause(subject, verb, particle, found, tuple(_phrases(tokens, at)))


def _subject(tokens: list[str]) -> tuple[_Noun | None, int]:
    """The subject, and the place behind it. Two nouns joined by "and" are one plural subject."""
    noun, at = _noun(tokens, 0, subject=True)
    if noun is None or noun.words[0] in POSSESSIVES or noun.head in MEDIA:
        return None, at
    if at < len(tokens) and tokens[at] == "and":
        other, after = _noun(tokens, at + 1, subject=True)
        if other is None:
            return None, at
        return _Noun((*noun.words, "and", *other.words), other.head, None, True), after
    if noun.words[0] not in DETERMINERS and noun.number is None and not noun.plural:
        noun = _Noun(("the", *noun.words), noun.head, None, False)
    return noun, at


def _noun(tokens: list[str], at: int, *, subject: bool = False) -> tuple[_Noun | None, int]:
    """A noun phrase that begins at a place, and the place behind it."""
    start, number = at, None
    if at < len(tokens) and tokens[at] in DETERMINERS:
        at += 1
    if at < len(tokens) and tokens[at] in NUMBERS:
        number = NUMBERS[tokens[at]]
        start, at = at, at + 1
    if at + 1 < len(tokens) and tokens[at] in GROUPS and tokens[at + 1] == "of":
        inner, after = _noun(tokens, at + 2, subject=subject)
        if inner is None:
            return None, at
        return _Noun((*tokens[start : at + 2], *inner.words), inner.head, None, True), after
    first = at
    while at < len(tokens) and at - first < _MOST_WORDS and _is_nominal(tokens, at, first, subject):
        at += 1
    if at == first or tokens[at - 1] in ADVERBS:
        return None, start
    head = tokens[at - 1]
    if number is not None and not is_plural(head):
        return None, start
    if head in MEASURES and at + 1 < len(tokens) and tokens[at] == "of":
        inner, after = _noun(tokens, at + 1, subject=subject)
        if inner is not None:
            return _Noun((*tokens[start : at + 1], *inner.words), inner.head, number, is_plural(head)), after
    return _Noun(tuple(tokens[start:at]), head, number, is_plural(head)), at


def _is_nominal(tokens: list[str], at: int, first: int, subject: bool) -> bool:
    """Whether a word belongs to a noun phrase: no other kind of word, and in a subject no verb."""
    word = tokens[at]
    if word in PREPOSITIONS | BREAKS | DETERMINERS | PRONOUNS or word in NUMBERS or word.isdecimal():
        return False
    if word.endswith("ly") or (word in ADVERBS and at > first):
        return False
    if at == first:
        return not (word in GERUNDS and subject)
    if word in GERUNDS or word in ("wearing", "dressed"):
        return False
    previous_plural = is_plural(tokens[at - 1])
    return not (
        subject and ((word in THIRD_PERSONS and not previous_plural) or (word in VERBS and previous_plural))
    )


def _verb(tokens: list[str], at: int, subject: _Noun) -> tuple[str | None, int]:
    """The verb in its dictionary form, and the place behind it; modifiers of the subject may precede it."""
    end = min(len(tokens), at + _MOST_MODIFIERS)
    place = at
    if at < len(tokens) and (
        tokens[at] in PREPOSITIONS or tokens[at] in ("wearing", "dressed", "who", "that")
    ):
        place = _after_modifiers(tokens, at, end)
    if place < len(tokens) and tokens[place] in ("is", "are"):
        place += 1
        while place < len(tokens) and (tokens[place] in ADVERBS or tokens[place].endswith("ly")):
            place += 1
        verb = GERUNDS.get(tokens[place]) if place < len(tokens) else None
        return verb, place + 1
    if place >= len(tokens):
        return None, place
    word = tokens[place]
    finite = VERBS.intersection((word,)) if subject.plural else THIRD_PERSONS.keys() & {word}
    verb = GERUNDS.get(word) or (THIRD_PERSONS.get(word, word) if finite else None)
    return verb, place + 1


def _after_modifiers(tokens: list[str], at: int, end: int) -> int:
    """The place of the verb behind "in a red dress", "wearing a hat" and the like: "is", or else a gerund."""
    for place in range(at, end):
        if tokens[place] in (",", ".", ";", "and", "while", "as"):
            end = place
            break
    for place in range(at, end):
        if tokens[place] in ("is", "are"):
            return place
    for place in range(at + 1, end):
        if tokens[place] in GERUNDS or (tokens[place] in THIRD_PERSONS and not is_noun_here(tokens, place)):
            return place
    return len(tokens)


def is_noun_here(tokens: list[str], place: int) -> bool:
    """Whether a form such as "stands" follows a determiner or a preposition, and so is a noun."""
    before = tokens[place - 1]
    return before in DETERMINERS | PREPOSITIONS or before in NUMBERS


def _phrases(tokens: list[str], at: int) -> Iterator[_Phrase]:
    """The phrases with prepositions that follow one another, up to the end of the clause."""
    while at < len(tokens):
        if tokens[at] in ADVERBS and tokens[at] not in PREPOSITIONS:
            at += 1
            continue
        infinitive = tokens[at] == "to" and at + 1 < len(tokens) and tokens[at + 1] in VERBS
        if tokens[at] not in PREPOSITIONS or infinitive:
            return
        noun, after = _noun(tokens, at + 1)
        if noun is None:
            at += 1
            continue
        yield _Phrase(tokens[at], noun)
        at = after
