"""Rendering: a fact as text, with the character spans of its parts.

Spans are half-open offsets in the text and hold for any Unicode value. Later stages find tokens of
the attribute or the subject by them and never search in text.
"""

from __future__ import annotations

from typing import NamedTuple

from factrecall.data.templates import pieces

TERMINATOR = "."

_PRONOUNS = {
    "F": {"subject": "she", "possessive": "her", "they": "she", "them": "her", "their": "her"},
    "M": {"subject": "he", "possessive": "his", "they": "he", "them": "him", "their": "his"},
}
# Spelling and sound disagree: a consonant sound behind a vowel letter, and the reverse.
_CONSONANT_SOUND = ("uni", "use", "usu", "uro", "uku", "ut", "eu", "ewe", "one", "once")
_VOWELS = ("a", "e", "i", "o", "u", "heir", "honest", "honor", "honour", "hour")
_VOWEL_LETTER_NAMES = frozenset("AEFHILMNORSX")


class Span(NamedTuple):
    """Half-open range of characters."""

    start: int
    end: int


class Rendered(NamedTuple):
    """A fact as text, with the spans of its parts.

    Attributes
    ----------
    text : str
        The whole sentence, or question and answer.
    subject : Span
        The name without 's, or the pronoun.
    relation : tuple of Span
        The words between the other parts, without outer white space.
    attribute : Span
        The attribute's value.
    terminator : Span
        The full stop behind it; recall must match the attribute and its terminator.
    """

    text: str
    subject: Span
    relation: tuple[Span, ...]
    attribute: Span
    terminator: Span


def article(noun: str) -> str:
    """Return "a" or "an" by the sound of the first word of `noun`."""
    word = noun.partition(" ")[0]
    letters = word.rstrip("+-,.")
    # Short acronyms are spelled out: an AB+, an MRI technician, a UX designer.
    if len(letters) <= 3 and letters.isupper():
        return "an" if letters[0] in _VOWEL_LETTER_NAMES else "a"
    word = word.lower()
    if word.startswith(_CONSONANT_SOUND):
        return "a"
    return "an" if word.startswith(_VOWELS) else "a"


def render_sentence(
    template: str, name: str, gender: str, attribute: str, *, named: bool
) -> Rendered:
    """Write a fact as a statement.

    Parameters
    ----------
    template : str
        A checked template (see `factrecall.data.templates`).
    name, gender : str
        The person; gender is "F" or "M".
    attribute : str
        The attribute's value, inserted as it is.
    named : bool
        Whether the first mention is the full name (first sentence of a biography, BIO_short) or
        the pronoun.
    """
    pronouns = _PRONOUNS[gender]
    text = ""
    subject = value = Span(0, 0)
    for literal, field in pieces(template):
        text += literal
        if field is None:
            continue
        start = len(text)
        if field == "attribute":
            text += attribute
            value = Span(start, len(text))
        elif field == "a":
            text += article(attribute)
        elif field in ("subject", "possessive"):
            mention = name if named else _pronoun(pronouns[field], start)
            text += mention
            subject = Span(start, len(text))
            if named and field == "possessive":
                text += "'s"
        else:
            text += _pronoun(pronouns[field], start)
    return _rendered(text, subject, value)


def render_question(question: str, name: str, attribute: str) -> Rendered:
    """Write a fact as question and answer, separated by one space."""
    text = ""
    subject = Span(0, 0)
    for literal, field in pieces(question):
        text += literal
        if field is not None:
            subject = Span(len(text), len(text) + len(name))
            text += name
    text += " "
    value = Span(len(text), len(text) + len(attribute))
    return _rendered(text + attribute + TERMINATOR, subject, value)


def _pronoun(word: str, start: int) -> str:
    return word if start else word.capitalize()


def _rendered(text: str, subject: Span, attribute: Span) -> Rendered:
    """Add the spans of the relation; the subject precedes the attribute, which ends the text."""
    gaps = (Span(0, subject.start), Span(subject.end, attribute.start))
    relation = tuple(span for gap in gaps if (span := _strip(text, gap)).end > span.start)
    return Rendered(text, subject, relation, attribute, Span(attribute.end, len(text)))


def _strip(text: str, span: Span) -> Span:
    part = text[span.start : span.end]
    start = span.start + len(part) - len(part.lstrip())
    return Span(start, start + len(part.strip()))
