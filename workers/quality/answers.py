"""Short answers: exact match and token F1 as SQuAD's script counts them, and visual question answering's accuracy."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from workers.errors import UnknownNameError
from workers.quality.result import ScoreResult, averaged, text_pairs

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)} | {"none": "0"}
_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = re.findall(
    r"\S+",
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm "
    "i've isn't it'd it'll ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't should've shouldn't "
    "somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's "
    "they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've",
)
_JOINED = {word.replace("'", ""): word for word in _CONTRACTIONS}


def evaluate(name: str, predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> ScoreResult:
    """The score ``name`` of answers; the value is the mean of the items.

    ``exact_match`` and ``token_f1`` take the best of an item's answers. ``vqa_accuracy`` counts how many of the (ten)
    people gave the answer, and is undefined for an item of under four. ``vqa_exact`` is PathVQA's: equal but for case
    and space.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each item, or an item without a reference.
    """
    if name not in _SCORES:
        raise UnknownNameError("score", name, _SCORES)
    pairs = text_pairs(name, predictions, references)
    return averaged(name, [_SCORES[name](prediction, texts) for prediction, texts in pairs])


def squad_normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, articles or extra space: what SQuAD's script compares."""
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def vqa_normalised(text: str) -> str:
    """What the VQA evaluation compares (arXiv 1505.00468).

    Lower case; no articles; number words as digits; contractions with their apostrophe; a punctuation mark is dropped
    where it stands at a space, or where a comma groups digits, and else parts words; a full stop goes unless a digit
    follows. Both sides are treated alike; the authors' script leaves the people's answers alone where all agree.
    """
    flat = text.replace("\n", " ").replace("\t", " ").strip()
    grouped = re.search(r"\d,\d", flat) is not None
    plain = flat
    for mark in _VQA_PUNCTUATION:
        at_space = f"{mark} " in flat or f" {mark}" in flat
        plain = plain.replace(mark, "" if at_space or grouped else " ")
    plain = re.sub(r"\.(?!\d)", "", plain)
    words = (_NUMBERS.get(word, word) for word in plain.lower().split())
    return " ".join(_JOINED.get(word, word) for word in words if word not in ("a", "an", "the"))


def _exact_match(prediction: str, answers: tuple[str, ...]) -> float:
    said = squad_normalised(prediction)
    return float(any(said == squad_normalised(answer) for answer in answers))


def _token_f1(prediction: str, answers: tuple[str, ...]) -> float:
    return max(_f1(squad_normalised(prediction).split(), squad_normalised(answer).split()) for answer in answers)


def _f1(said: list[str], wanted: list[str]) -> float:
    """The harmonic mean of precision and recall of words; two empty answers agree (SQuAD 2's rule)."""
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    return 2 * common / (len(said) + len(wanted))


def _vqa_accuracy(prediction: str, answers: tuple[str, ...]) -> float | None:
    """The mean, over leaving out one person in turn, of min(1, others who said so / 3).

    ``None`` with under four people: three others who agree are what makes an answer wholly right.
    """
    if len(answers) < 4:
        return None
    said = vqa_normalised(prediction)
    agreeing = [vqa_normalised(answer) == said for answer in answers]
    total = sum(agreeing)
    return sum(min(1.0, (total - agrees) / 3) for agrees in agreeing) / len(answers)


def _vqa_exact(prediction: str, answers: tuple[str, ...]) -> float:
    said = " ".join(prediction.lower().split())
    return float(any(said == " ".join(answer.lower().split()) for answer in answers))


_SCORES: dict[str, Callable[[str, tuple[str, ...]], float | None]] = {
    "exact_match": _exact_match,
    "token_f1": _token_f1,
    "vqa_accuracy": _vqa_accuracy,
    "vqa_exact": _vqa_exact,
}
