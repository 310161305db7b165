"""Do the vectors of a text's words lie near those of its reference? BERTScore and MoverScore, over any embedding."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from workers.errors import InputError, JobError, UnknownNameError
from workers.quality.packages import installed
from workers.quality.result import ScoreResult, averaged, text_pairs

Vectors = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A text as its tokens.

    Attributes:
        tokens: as the tokenizer writes them.
        vectors: ``(len(tokens), d)``: each token's vector in its context.
        special: the places of tokens that are not of the text, such as ``[CLS]``.
    """

    tokens: tuple[str, ...]
    vectors: Vectors
    special: frozenset[int] = frozenset()

    @property
    def own(self) -> list[int]:
        """The places of the text's own tokens."""
        return [place for place in range(len(self.tokens)) if place not in self.special]


Embed = Callable[[Sequence[str]], Sequence[Embedded]]
"""Texts to their tokens and vectors, one for each text and in the same order; see ``encoder``."""


def evaluate(
    name: str, predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, embed: Embed
) -> ScoreResult:
    """The score ``name`` of texts by the vectors ``embed`` gives; of the best reference. An empty text scores 0.

    ``bert_score`` and ``scibert_score`` are one computation (arXiv 1904.09675): the F1 of greedy cosine matching, not
    weighted and not rescaled; they differ in the model behind ``embed``. As in the authors' package, a special token
    may be matched but does not itself count.

    ``mover_score`` (arXiv 1909.02622, its second form) is 1 minus the least work to move one text's words onto the
    other's, words weighing their rarity among the references. The authors' script counts the rarity of a prediction's
    words among the predictions, where a model that answers the same to everything weighs nothing and scores 1.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each item, an item without a reference, or ``embed``
            does not answer for each text.
        JobError: a package is missing, or no solution was found.
    """
    if name not in ("bert_score", "scibert_score", "mover_score"):
        raise UnknownNameError("score", name, ("bert_score", "scibert_score", "mover_score"))
    pairs = text_pairs(name, predictions, references)
    wanted = sorted({text for prediction, texts in pairs for text in (prediction, *texts)}, key=lambda t: (len(t), t))
    embedded = list(embed(wanted))
    if len(embedded) != len(wanted):
        raise InputError(f"The embedding answered {len(embedded)} of {len(wanted)} texts; it must answer each.")
    known = dict(zip(wanted, embedded, strict=True))
    if name == "mover_score":
        weights = _rarity([known[text] for text in {text for _, texts in pairs for text in texts}])
        items = [max(_mover(known[said], known[text], weights) for text in texts) for said, texts in pairs]
        return averaged(name, items, note="unigrams, last layer given, rarity among the references")
    items = [max(_bert_f1(known[said], known[text]) for text in texts) for said, texts in pairs]
    return averaged(name, items, note="F1, without rarity weights, not rescaled")


def _bert_f1(prediction: Embedded, reference: Embedded) -> float:
    if not prediction.own or not reference.own:
        return 0.0
    cosines = _unit(prediction.vectors) @ _unit(reference.vectors).T
    precision = float(cosines.max(axis=1)[prediction.own].mean())
    recall = float(cosines.max(axis=0)[reference.own].mean())
    # The harmonic mean of a negative and a positive figure lies outside both.
    return 2 * precision * recall / (precision + recall) if min(precision, recall) > 0 else 0.0


def _rarity(references: Sequence[Embedded]) -> Callable[[str], float]:
    """Inverse document frequency among the references: log((N + 1)/(n + 1))."""
    seen = Counter(token for one in references for token in set(one.tokens))
    total = len(references)
    return lambda token: math.log((total + 1) / (seen[token] + 1))


def _mover(prediction: Embedded, reference: Embedded, rarity: Callable[[str], float]) -> float:
    if not prediction.own or not reference.own:
        return 0.0
    mine, theirs = _masses(prediction, rarity), _masses(reference, rarity)
    ours, others = _unit(prediction.vectors)[mine > 0], _unit(reference.vectors)[theirs > 0]
    squared = np.clip(2.0 - 2.0 * (ours @ others.T), 0.0, None)
    return 1.0 - least_work(mine[mine > 0], theirs[theirs > 0], np.sqrt(squared))


def _masses(text: Embedded, rarity: Callable[[str], float]) -> Vectors:
    """What share of its text each token weighs: its rarity; nothing for punctuation and a word's later pieces.

    Where no token of the text weighs anything, they weigh alike.
    """
    weights = np.zeros(len(text.tokens))
    for place in text.own:
        token = text.tokens[place]
        skipped = token.startswith("##") or token in string.punctuation
        weights[place] = 0.0 if skipped else rarity(token)
    if weights.sum() <= 0:
        weights[text.own] = 1.0
    share: Vectors = weights / weights.sum()
    return share


def least_work(supply: Vectors, demand: Vectors, distance: Vectors) -> float:
    """The earth mover's distance: the least Σ flow × distance that turns ``supply`` into ``demand``, both summing to 1.

    Args:
        supply: ``(n,)`` masses.
        demand: ``(m,)`` masses.
        distance: ``(n, m)``.

    Raises:
        JobError: scipy is missing, or found no solution.
    """
    with installed("mover_score", "scipy"):
        from scipy.optimize import linprog  # noqa: PLC0415 - heavy
        from scipy.sparse import csr_array, kron, vstack  # noqa: PLC0415 - heavy

    rows, columns = distance.shape
    leaves = kron(csr_array(np.eye(rows)), np.ones((1, columns)))
    arrives = kron(np.ones((1, rows)), csr_array(np.eye(columns)))
    # One constraint follows from the others; left in, rounding of the two sums could make the problem infeasible.
    equal = vstack([leaves, arrives]).tocsr()[:-1]
    amounts = np.concatenate([supply, demand])[:-1]
    solved = linprog(distance.ravel(), A_eq=equal, b_eq=amounts, bounds=(0, None), method="highs")
    if not solved.success:
        raise JobError(f"mover_score could not be computed ({solved.message}); leave it out of the task's scores.")
    return float(solved.fun)


def _unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1; one of length 0 stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


MODELS: Mapping[str, str] = {
    "bert_score": "FacebookAI/roberta-large",
    # Its main branch holds pickles alone; this commit is the hub's own conversion, proposed to it (refs/pr/6).
    "scibert_score": "allenai/scibert_scivocab_uncased@952d056ace307abd2cda7cee822a1d608deb20ed",
    "mover_score": "distilbert/distilbert-base-uncased",
}
"""The encoder of each published score: its name on the hub, and its revision after an ``@`` where not the main one."""
LAYERS: Mapping[str, int] = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "distilroberta-base": 5,
    "distilbert-base-uncased": 5,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
    "deberta-xlarge-mnli": 40,
    "scibert_scivocab_uncased": 8,
    "scibert_scivocab_cased": 9,
}
"""The hidden layer (0 is the embedding) at which BERTScore by that model follows people best, as its authors found."""
LAST = -1


def layer_of(score: str, encoder: str) -> int:
    """The hidden layer that ``score`` takes of ``encoder``, by the last part of its name or folder.

    MoverScore's second form takes the last one; BERTScore that of ``LAYERS``, and the last of a model it does not list.
    """
    return LAST if score == "mover_score" else LAYERS.get(PurePosixPath(encoder).name, LAST)
