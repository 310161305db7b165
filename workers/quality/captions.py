"""CIDEr and CIDEr-D: do captions use the n-grams that are telling of their image? By arXiv 1411.5726."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from workers.errors import UnknownNameError
from workers.quality.result import ScoreResult, averaged, text_pairs, unknown
from workers.quality.words import caption_words

_LONGEST = 4
"""Words of the longest n-gram; the paper's."""
_SIGMA = 6.0
"""Spread of CIDEr-D's length penalty, in bigrams as the COCO caption evaluation counts length; the paper's value."""
_SCALE = 10.0
"""COCO's factor, so that a caption equal to its only reference scores 10."""

_Ngram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Weighed:
    """A caption: for n = 1 to 4 the weights of its n-grams and their Euclidean norm; and its length in bigrams."""

    weights: tuple[Mapping[_Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


def evaluate(name: str, predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> ScoreResult:
    """``cider_d`` (what the COCO evaluation prints as CIDEr) or ``cider`` of captions against their references.

    The rarity of an n-gram is counted over the items' references, so the value of an item depends on the others, and
    one item alone has none. A caption of fewer than four words cannot reach 10: it has no 4-grams.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each item, or an item without a reference.
        JobError: a package is missing.
    """
    if name not in ("cider", "cider_d"):
        raise UnknownNameError("score", name, ("cider", "cider_d"))
    pairs = text_pairs(name, predictions, references)
    if len(pairs) < 2:
        return unknown(name, "rarity of n-grams is counted over items, and one item alone has none")
    cooked = [(_ngrams(prediction), [_ngrams(text) for text in texts]) for prediction, texts in pairs]
    seen = Counter(chain.from_iterable(set(chain.from_iterable(texts)) for _, texts in cooked))
    rarity = {ngram: math.log(len(pairs)) - math.log(times) for ngram, times in seen.items()}
    unseen = math.log(len(pairs))
    items = [
        _similarity(
            _weigh(prediction, rarity, unseen),
            [_weigh(text, rarity, unseen) for text in texts],
            clipped=name == "cider_d",
        )
        for prediction, texts in cooked
    ]
    return averaged(name, items, note="words split by NLTK's Penn Treebank tokenizer, not COCO's Java one")


def _ngrams(text: str) -> Counter[_Ngram]:
    words = caption_words(text)
    return Counter(
        tuple(words[start : start + size]) for size in range(1, _LONGEST + 1) for start in range(len(words) - size + 1)
    )


def _weigh(counts: Counter[_Ngram], rarity: Mapping[_Ngram, float], unseen: float) -> _Weighed:
    weights: tuple[dict[_Ngram, float], ...] = tuple({} for _ in range(_LONGEST))
    for ngram, times in counts.items():
        weights[len(ngram) - 1][ngram] = times * rarity.get(ngram, unseen)
    norms = tuple(math.sqrt(math.fsum(weight * weight for weight in each.values())) for each in weights)
    return _Weighed(
        weights=weights, norms=norms, length=sum(times for ngram, times in counts.items() if len(ngram) == 2)
    )


def _similarity(prediction: _Weighed, references: Sequence[_Weighed], *, clipped: bool) -> float:
    """The mean over references and n of the cosine, times 10; clipped counts and a length penalty for CIDEr-D."""
    total = 0.0
    for reference in references:
        cosines = sum(_cosine(prediction, reference, size, clipped=clipped) for size in range(_LONGEST))
        apart = prediction.length - reference.length
        total += cosines * (math.exp(-(apart**2) / (2 * _SIGMA**2)) if clipped else 1.0)
    return _SCALE * total / _LONGEST / len(references)


def _cosine(one: _Weighed, other: _Weighed, size: int, *, clipped: bool) -> float:
    norms = one.norms[size] * other.norms[size]
    if norms == 0.0:
        return 0.0
    theirs = other.weights[size]
    common = ((weight, theirs[ngram]) for ngram, weight in one.weights[size].items() if ngram in theirs)
    return math.fsum((min(mine, their) if clipped else mine) * their for mine, their in common) / norms
