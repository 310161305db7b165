"""Every score by name: what it takes, which way is better, its range, what it needs and who defined it.

Data only: reading it loads no score. Adding a score is a line here and a case in its family's module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from workers.errors import InputError, UnknownNameError
from workers.quality import packages
from workers.quality.result import ScoreResult


class Takes(StrEnum):
    """What a score compares: its predictions, and its references."""

    TEXTS = "a text each; a text each, or several"
    LABELS = "(n,) class indices; (n,) class indices"
    PROBABILITIES = "(n,) or (n, classes) probabilities; (n,) class indices"
    TAGS = "BIO tags of a sentence each; the same"
    BOXES = "detection.Boxes of an image each; the same"
    QUERIES = "an SQL query each; an SQL query each"
    TOKENS = "(length,) tokens each; (length,) tokens each, -100 where none counts"
    LIKELIHOODS = "(length,) log-probabilities of the true tokens each; (length,) those tokens, -100 where none counts"


@dataclass(frozen=True, kw_only=True)
class ScoreInfo:
    """What is known of a score without computing it.

    Attributes:
        title: as in a table.
        family: its module in ``workers.quality``.
        takes: what predictions and references are.
        source: who defined it, and whose code computes it.
        higher_is_better: else lower is.
        low: the least value.
        high: the greatest; ``None``: there is none.
        packages: what it needs installed, from the extra ``quality``.
        programs: what else it needs, in words; where it is missing the score is null with the reason.
        context: what ``evaluate`` must be given besides, by name.
        per_item: whether each item has a figure of its own.
        mean_of_items: whether the value is the mean of the items' figures, so that resampling items gives its interval.
    """

    title: str
    family: str
    takes: Takes
    source: str
    higher_is_better: bool = True
    low: float = 0.0
    high: float | None = 1.0
    packages: tuple[str, ...] = ()
    programs: str | None = None
    context: tuple[str, ...] = ()
    per_item: bool = True
    mean_of_items: bool = True


def score_info(name: str) -> ScoreInfo:
    """The entry of ``name``.

    Raises:
        UnknownNameError: lists the known scores.
    """
    if name not in SCORES:
        raise UnknownNameError("score", name, SCORES)
    return SCORES[name]


def want_likelihoods(names: Iterable[str]) -> bool:
    """Whether one of the scores is made of how likely the model finds the right answers.

    Raises:
        UnknownNameError: no such score.
    """
    return any(score_info(name).takes is Takes.LIKELIHOODS for name in names)


def prepare(names: Iterable[str]) -> None:
    """Import what the scores need: a missing package then ends a job before it trains, and no phase pays for it.

    Raises:
        UnknownNameError: no such score.
        JobError: a package is missing; names the extra that brings it.
    """
    for name in names:
        for package in score_info(name).packages:
            packages.load(name, package)


def evaluate(
    name: str, predictions: Sequence[Any], references: Sequence[Any], *, context: Mapping[str, object] | None = None
) -> ScoreResult:
    """The score ``name``, computed by its family's module, which is imported now.

    Args:
        name: of ``SCORES``.
        predictions: what ``score_info(name).takes`` says.
        references: likewise, in the same order.
        context: what any of a task's scores needs besides; each takes what it names (``embed``: ``embedding.Embed``,
            ``databases``: a path each).

    Raises:
        UnknownNameError: no such score.
        InputError: what is given cannot be scored.
        JobError: a package is missing, or the score cannot be computed.
    """
    info = score_info(name)
    given = context or {}
    for wanted in info.context:
        if wanted not in given:
            raise InputError(f"The score {name} needs {wanted}, which was not given; pass it in the context.")
    module = importlib.import_module(f"workers.quality.{info.family}")
    compute = cast("Callable[..., ScoreResult]", module.evaluate)
    return compute(name, predictions, references, **{wanted: given[wanted] for wanted in info.context})


def _overlap(title: str, source: str, package: str, *, programs: str | None = None) -> ScoreInfo:
    return ScoreInfo(
        title=title, family="overlap", takes=Takes.TEXTS, source=source, packages=(package,), programs=programs
    )


def _caption(title: str) -> ScoreInfo:
    source = "arXiv 1411.5726; own code after the COCO caption evaluation"
    return ScoreInfo(title=title, family="captions", takes=Takes.TEXTS, source=source, high=10.0, packages=("nltk",))


def _answers(title: str, source: str) -> ScoreInfo:
    return ScoreInfo(title=title, family="answers", takes=Takes.TEXTS, source=source)


def _embedding(title: str, source: str, *packages: str, low: float = 0.0) -> ScoreInfo:
    return ScoreInfo(
        title=title,
        family="embedding",
        takes=Takes.TEXTS,
        source=source,
        low=low,
        packages=packages,
        context=("embed",),
    )


def _classification(title: str, *, takes: Takes = Takes.LABELS, per_item: bool = False) -> ScoreInfo:
    return ScoreInfo(
        title=title,
        family="classification",
        takes=takes,
        source="scikit-learn",
        packages=("scikit-learn",),
        per_item=per_item,
        mean_of_items=per_item,
    )


def _entities(title: str) -> ScoreInfo:
    source = "aclanthology.org/W03-0419; own code, as seqeval 1.2.2 counts"
    return ScoreInfo(title=title, family="entities", takes=Takes.TAGS, source=source, mean_of_items=False)


def _detection(title: str) -> ScoreInfo:
    return ScoreInfo(
        title=title,
        family="detection",
        takes=Takes.BOXES,
        source="cocodataset.org/#detection-eval; pycocotools",
        packages=("pycocotools",),
        per_item=False,
        mean_of_items=False,
    )


def _sql(title: str, source: str, *, high: float | None = 1.0) -> ScoreInfo:
    return ScoreInfo(title=title, family="sql", takes=Takes.QUERIES, source=source, high=high, context=("databases",))


def _error(title: str, source: str, *, low: float) -> ScoreInfo:
    """A score of a language model that has no upper end, and lower is better."""
    return ScoreInfo(
        title=title,
        family="language_model",
        takes=Takes.LIKELIHOODS,
        source=source,
        higher_is_better=False,
        low=low,
        high=None,
        mean_of_items=False,
    )


_ROUGE = "Lin 2004, aclanthology.org/W04-1013; rouge-score 0.1.2"
_METEOR = "Lavie and Agarwal 2007, aclanthology.org/W07-0734; NLTK"
_SQUAD = "arXiv 1606.05250; own code after SQuAD's script"

SCORES: dict[str, ScoreInfo] = {
    "rouge1": _overlap("ROUGE-1", _ROUGE, "rouge-score"),
    "rouge2": _overlap("ROUGE-2", _ROUGE, "rouge-score"),
    "rougel": _overlap("ROUGE-L", _ROUGE, "rouge-score"),
    "rougelsum": _overlap("ROUGE-Lsum", _ROUGE, "rouge-score"),
    "bleu": ScoreInfo(
        title="BLEU",
        family="overlap",
        takes=Takes.TEXTS,
        source="arXiv 1804.08771; sacrebleu",
        high=100.0,
        packages=("sacrebleu",),
        mean_of_items=False,
    ),
    "meteor": _overlap("METEOR", _METEOR, "nltk", programs="NLTK's WordNet data"),
    "meteor_stem": _overlap("METEOR (exact and stem)", _METEOR, "nltk"),
    "cider": _caption("CIDEr"),
    "cider_d": _caption("CIDEr-D"),
    "spice": ScoreInfo(
        title="SPICE",
        family="spice",
        takes=Takes.TEXTS,
        source="arXiv 1607.08822; the authors' program",
        programs="java, the SPICE jar and Stanford's parser beside it",
    ),
    "exact_match": _answers("Exact match", _SQUAD),
    "token_f1": _answers("Token F1", _SQUAD),
    "vqa_accuracy": _answers("VQA accuracy", "arXiv 1505.00468; own code after the VQA evaluation"),
    "vqa_exact": _answers("VQA exact match", "PathVQA, arXiv 2003.10286; own code"),
    "bert_score": _embedding("BERTScore", "arXiv 1904.09675; own code"),
    "scibert_score": _embedding("SciBERTScore", "BERTScore by SciBERT, arXiv 1903.10676; own code"),
    "mover_score": _embedding("MoverScore", "arXiv 1909.02622; own code on scipy", "scipy", low=-1.0),
    "accuracy": _classification("Accuracy", per_item=True),
    **{
        f"{function}_{average}": _classification(f"{title} ({average})")
        for function, title in (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"))
        for average in ("macro", "micro", "weighted")
    },
    "auc": _classification("AUC", takes=Takes.PROBABILITIES),
    "entity_f1": _entities("Entity F1"),
    "entity_precision": _entities("Entity precision"),
    "entity_recall": _entities("Entity recall"),
    "map": _detection("mAP"),
    "map_50": _detection("mAP at 0.50"),
    "map_75": _detection("mAP at 0.75"),
    "execution_accuracy": _sql("Execution accuracy", "arXiv 1809.08887, 2010.02840 (Spider); own code"),
    "valid_efficiency": _sql("Valid efficiency score", "arXiv 2305.03111 (BIRD); own code", high=None),
    "loss": _error("Loss", "mean cross-entropy per token", low=0.0),
    "perplexity": _error("Perplexity", "exponential of the mean cross-entropy per token", low=1.0),
    "masked_accuracy": ScoreInfo(
        title="Masked token accuracy",
        family="language_model",
        takes=Takes.TOKENS,
        source="share of the masked tokens that is right",
        mean_of_items=False,
    ),
}
