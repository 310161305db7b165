"""Scores of named entities: an entity is right only where its type and both its edges are."""

from __future__ import annotations

from collections.abc import Sequence

from workers.errors import InputError, UnknownNameError
from workers.quality.result import ScoreResult, check_pairs, scored

_Span = tuple[str, int, int]


def evaluate(name: str, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> ScoreResult:
    """``entity_f1``, ``entity_precision`` or ``entity_recall`` over all entities of sentences' BIO tags.

    As CoNLL's script and seqeval count: an entity begins at ``B-X``, at ``I-X`` after ``O`` or another type, and ends
    before whatever does not go on with it. What a sentence without entities makes undefined is 0, and 1 where there
    are no entities anywhere and none was predicted. The items are sentences.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each sentence or word, or a tag that is not BIO.
    """
    if name not in ("entity_f1", "entity_precision", "entity_recall"):
        raise UnknownNameError("score", name, ("entity_f1", "entity_precision", "entity_recall"))
    check_pairs(name, len(predictions), len(references))
    counts = [_count(index, said, true) for index, (said, true) in enumerate(zip(predictions, references, strict=True))]
    total = tuple(sum(column) for column in zip(*counts, strict=True))
    return scored(name, _value(name, *total), per_item=[_value(name, *one) for one in counts])


def spans(tags: Sequence[str]) -> set[_Span]:
    """The entities of one sentence: type, first word, and the word after the last.

    Raises:
        InputError: a tag is not ``O``, ``B-TYPE`` or ``I-TYPE``.
    """
    found: set[_Span] = set()
    open_type, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in {"B", "I"} or not kind):
            raise InputError(f"{tag!r} is not a BIO tag; write O, B-TYPE or I-TYPE.")
        if open_type and (prefix != "I" or kind != open_type):
            found.add((open_type, start, place))
            open_type = ""
        if tag != "O" and not open_type:
            open_type, start = kind, place
    return found


def _count(index: int, said: Sequence[str], true: Sequence[str]) -> tuple[int, int, int]:
    """Entities found that are right, that were predicted, and that are true."""
    if len(said) != len(true):
        raise InputError(f"Sentence {index} has {len(true)} words and {len(said)} predicted tags; give one for each.")
    predicted, wanted = spans(said), spans(true)
    return len(predicted & wanted), len(predicted), len(wanted)


def _value(name: str, right: int, predicted: int, wanted: int) -> float:
    if predicted == wanted == 0:
        return 1.0
    whole = {"entity_f1": (predicted + wanted) / 2, "entity_precision": predicted, "entity_recall": wanted}[name]
    return right / whole if whole else 0.0
