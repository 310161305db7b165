"""How many words, and runs of words, a text shares with its references: ROUGE, BLEU and METEOR."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

from workers.errors import UnknownNameError
from workers.quality.packages import installed
from workers.quality.result import ScoreResult, averaged, scored, text_pairs, unknown
from workers.quality.words import ptb_words

_Pairs = Sequence[tuple[str, tuple[str, ...]]]


def evaluate(name: str, predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> ScoreResult:
    """The score ``name`` of texts against one reference each, or several.

    ROUGE is the F-measure with Porter's stemmer, of the best reference. BLEU counts over all of an item's references;
    its value is of the corpus, not the mean of the items. METEOR is of the best reference.

    Raises:
        UnknownNameError: no such score.
        InputError: nothing to score, not one prediction for each item, or an item without a reference.
        JobError: a package is missing.
    """
    if name not in _SCORES:
        raise UnknownNameError("score", name, _SCORES)
    return _SCORES[name](name, text_pairs(name, predictions, references))


def sentences_on_lines(text: str) -> str:
    """The text with each sentence on a line, as ROUGE-Lsum takes it.

    A text of several lines stays as it is; in any other a sentence ends at ``.``, ``!`` or ``?`` before a space.
    """
    return text if "\n" in text.strip() else re.sub(r"(?<=[.!?])\s+", "\n", text.strip())


def _rouge(name: str, pairs: _Pairs) -> ScoreResult:
    with installed(name, "rouge-score"):
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - brings nltk, over a second

    kind = name.replace("rougel", "rougeL")
    scorer = RougeScorer([kind], use_stemmer=True)
    laid_out = sentences_on_lines if name == "rougelsum" else str
    items = [
        float(scorer.score_multi([laid_out(text) for text in texts], laid_out(prediction))[kind].fmeasure)
        for prediction, texts in pairs
    ]
    return averaged(name, items, note="F-measure, Porter stemmer")


def _bleu(name: str, pairs: _Pairs) -> ScoreResult:
    with installed(name, "sacrebleu"):
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - a door

    most = max(len(texts) for _, texts in pairs)
    # Its annotation leaves out that None stands for a reference an item does not have.
    absent = cast("str", None)
    streams = [[texts[place] if place < len(texts) else absent for _, texts in pairs] for place in range(most)]
    corpus, sentence = BLEU(), BLEU(effective_order=True)
    value = corpus.corpus_score([prediction for prediction, _ in pairs], streams).score
    items = [sentence.sentence_score(prediction, list(texts)).score for prediction, texts in pairs]
    return scored(name, value, per_item=items, note=f"sacrebleu {corpus.get_signature()}")


class _NoSynonyms:
    """Stands in for WordNet in NLTK's METEOR: no word has a synonym, so only the exact and stem stages match."""

    def synsets(self, _word: str) -> list[object]:
        return []


def _meteor_stem(name: str, pairs: _Pairs) -> ScoreResult:
    return averaged(
        name, _meteor_items(name, pairs, _NoSynonyms()), note="NLTK's, exact and stem stages, without WordNet"
    )


def _meteor(name: str, pairs: _Pairs) -> ScoreResult:
    with installed(name, "nltk"):
        from nltk.corpus import wordnet  # noqa: PLC0415 - over a second
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return unknown(
            name, "WordNet is not installed here (python -m nltk.downloader wordnet); meteor_stem does without"
        )
    return averaged(name, _meteor_items(name, pairs, wordnet), note="NLTK's, exact, stem and WordNet stages")


def _meteor_items(name: str, pairs: _Pairs, synonyms: object) -> list[float]:
    with installed(name, "nltk"):
        from nltk.translate.meteor_score import meteor_score  # noqa: PLC0415 - over a second
    return [
        float(meteor_score([ptb_words(text) for text in texts], ptb_words(prediction), wordnet=synonyms))
        for prediction, texts in pairs
    ]


_SCORES: dict[str, Callable[[str, _Pairs], ScoreResult]] = {
    "rouge1": _rouge,
    "rouge2": _rouge,
    "rougel": _rouge,
    "rougelsum": _rouge,
    "bleu": _bleu,
    "meteor": _meteor,
    "meteor_stem": _meteor_stem,
}
