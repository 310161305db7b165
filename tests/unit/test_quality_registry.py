"""The registry of scores: what every score must hold to, whatever it counts."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from workers.errors import InputError, JobError, UnknownNameError
from workers.quality.classification import METRICS
from workers.quality.embedding import MODELS, Embedded
from workers.quality.registry import SCORES, Takes, evaluate, prepare, score_info
from workers.quality.result import averaged, scored
from workers.tasks import TASKS

TEXTS = (
    "The red bird sings loudly in the old tree.",
    "A blue fish swims slowly under the long bridge.",
    "Two small dogs sleep beside a warm fire tonight.",
)
OFFLINE_TEXT_SCORES = sorted(
    name for name, info in SCORES.items() if info.takes is Takes.TEXTS and info.programs is None
)


def letters(texts: list[str]) -> list[Embedded]:
    """Each word as how often it has each letter: a context-free embedding worked out on paper."""
    return [
        Embedded(
            tokens=tuple(text.lower().split()),
            vectors=np.array([[word.count(chr(97 + at)) for at in range(26)] for word in text.lower().split()], float),
        )
        for text in texts
    ]


def text_score(name: str, predictions, references):
    """The score by the letters' embedding; a VQA answer is compared with those of ten people."""
    tenfold = name == "vqa_accuracy" and all(isinstance(text, str) for text in references)
    given = [[text] * 10 for text in references] if tenfold else references
    return evaluate(name, predictions, given, context={"embed": letters})


def test_an_unknown_score_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rouge1'"):
        evaluate("rouge-1", ["a"], ["a"])


@pytest.mark.parametrize("name", sorted(name for name, info in SCORES.items() if info.context))
def test_a_score_that_needs_more_says_what(name: str) -> None:
    with pytest.raises(InputError, match=rf"The score {name} needs (embed|databases), which was not given"):
        evaluate(name, ["a"], ["a"])


@pytest.mark.parametrize("name", sorted(SCORES))
def test_nothing_has_no_score(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} of no predictions is undefined"):
        evaluate(name, [], [], context={"embed": letters, "databases": []})


@pytest.mark.parametrize("name", sorted(SCORES))
def test_predictions_that_do_not_pair_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="1 predictions cannot be scored against 2"):
        evaluate(name, ["a"], ["a", "b"], context={"embed": letters, "databases": ["a", "b"]})


@pytest.mark.parametrize("name", sorted(name for name, info in SCORES.items() if info.takes is Takes.TEXTS))
def test_an_item_without_a_reference_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Item 1 has no reference"):
        text_score(name, ["a", "b"], [["a"], []])


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("rouge1", "rouge_score.rouge_scorer", "rouge-score"),
        ("bleu", "sacrebleu.metrics.bleu", "sacrebleu"),
        ("meteor_stem", "nltk.translate.meteor_score", "nltk"),
        ("cider_d", "nltk.tokenize", "nltk"),
        ("mover_score", "scipy.optimize", "scipy"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, name, module, package) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JobError, match=rf"needs the package {package}, .*pip install 'wattledger\[quality\]'"):
        text_score(name, list(TEXTS), list(TEXTS))


def test_a_missing_package_can_be_told_before_any_score(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    prepare(["rouge1", "accuracy", "spice"])
    with pytest.raises(JobError, match="The score bleu needs the package sacrebleu"):
        prepare(["rouge1", "bleu"])


def test_an_unknown_score_can_be_told_before_any_score() -> None:
    with pytest.raises(UnknownNameError, match="unknown score 'blue'"):
        prepare(["blue"])


def test_prepared_scores_import_no_package_when_they_are_computed() -> None:
    show = (
        "import json, sys; from workers.quality.registry import evaluate, prepare; names = ['rouge1', 'bleu', 'cider'];"
        "prepare([*names, 'accuracy', 'map']); before = set(sys.modules);"
        "[evaluate(name, ['a', 'b'], ['a', 'b']) for name in names]; evaluate('accuracy', [1], [1]);"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    # sacrebleu still reads one small module, the tokenizer it is told to use.
    packages = {module.partition(".")[0] for module in json.loads(ran.stdout)}
    assert not packages & {"nltk", "rouge_score", "sklearn", "scipy"}


def test_a_figure_that_is_not_a_number_never_comes_out() -> None:
    result = scored("bleu", math.nan, per_item=[math.inf, 1.0])
    assert (result.value, result.reason, result.per_item) == (None, "bleu came out as nan", (None, 1.0))


def test_a_mean_leaves_out_what_has_no_figure_and_says_so() -> None:
    result = averaged("f", [None, 1.0, 0.5])
    assert (result.value, result.note) == (0.75, "1 of 3 items could not be scored and are left out")
    assert averaged("f", [None, None]).reason == "none of 2 items could be scored"


@pytest.mark.parametrize("name", OFFLINE_TEXT_SCORES)
def test_a_text_equal_to_its_reference_has_the_best_score(name: str) -> None:
    result = text_score(name, list(TEXTS), list(TEXTS))
    best = score_info(name).high
    # METEOR's penalty for one chunk of n matched words is 0.5/n³, so that it never quite reaches 1.
    tolerance = 1e-3 if name == "meteor_stem" else 1e-7
    assert result.value == pytest.approx(best, rel=tolerance)
    assert result.per_item == pytest.approx([best] * 3, rel=tolerance)


@pytest.mark.parametrize("name", OFFLINE_TEXT_SCORES)
def test_an_empty_prediction_scores_nothing(name: str) -> None:
    result = text_score(name, ["", *TEXTS[1:]], list(TEXTS))
    assert result.per_item is not None
    assert result.per_item[0] == 0.0


@pytest.mark.parametrize("name", OFFLINE_TEXT_SCORES)
def test_a_second_reference_that_is_equal_never_hurts(name: str) -> None:
    worse = ["The bird is red.", "Fish swim.", "Dogs sleep by the fire."]
    one = text_score(name, list(TEXTS), worse)
    both = text_score(name, list(TEXTS), [[other, *[text] * 9] for other, text in zip(worse, TEXTS, strict=True)])
    assert one.value is not None
    assert both.value is not None
    assert both.value >= one.value


@pytest.mark.parametrize("name", OFFLINE_TEXT_SCORES)
def test_scores_lie_in_their_range_and_the_order_of_items_does_not_matter(name: str) -> None:
    info, chance = score_info(name), random.Random(7)
    words = sorted({word for text in TEXTS for word in text.split()})
    pairs = [
        (
            " ".join(chance.choices(words, k=chance.randint(0, 9))),
            " ".join(chance.choices(words, k=chance.randint(1, 9))),
        )
        for _ in range(30)
    ]
    moved = chance.sample(range(30), 30)
    result = text_score(name, [said for said, _ in pairs], [true for _, true in pairs])
    again = text_score(name, [pairs[at][0] for at in moved], [pairs[at][1] for at in moved])
    assert result.value == pytest.approx(again.value, rel=1e-9)
    assert again.per_item == pytest.approx([result.per_item[at] for at in moved], rel=1e-9)
    assert all(info.low <= item <= info.high * (1 + 1e-9) for item in (result.value, *result.per_item))
    assert not info.mean_of_items or result.value == pytest.approx(sum(result.per_item) / 30, rel=1e-9)


def test_every_entry_says_where_it_comes_from_and_its_range_is_one() -> None:
    for name, info in SCORES.items():
        assert info.title, name
        assert info.source, name
        assert info.high is None or info.low < info.high
        assert info.per_item or not info.mean_of_items
    assert len({info.title for info in SCORES.values()}) == len(SCORES)


def test_every_metric_of_labels_and_of_a_task_is_in_the_registry() -> None:
    assert set(METRICS) | {"auc"} == {name for name, info in SCORES.items() if info.family == "classification"}
    assert {metric for task in TASKS.values() for metric in task.metrics} <= set(SCORES)
    assert set(MODELS) == {name for name, info in SCORES.items() if info.context == ("embed",)}


def test_less_is_better_only_for_what_counts_errors() -> None:
    assert {name for name, info in SCORES.items() if not info.higher_is_better} == {"loss", "perplexity"}


def test_entries_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        SCORES["bleu"].high = 1.0
    assert replace(SCORES["bleu"], high=1.0) != SCORES["bleu"]


def test_the_registry_loads_no_heavy_package() -> None:
    show = "import json, sys, workers.quality.registry; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    heavy = {"numpy", "scipy", "sklearn", "nltk", "sacrebleu", "rouge_score", "pycocotools", "torch", "transformers"}
    assert not heavy & set(json.loads(ran.stdout))


@pytest.mark.parametrize("family", sorted({info.family for info in SCORES.values()}))
def test_a_family_is_imported_without_its_packages(family: str) -> None:
    show = f"import json, sys, workers.quality.{family}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    heavy = {"scipy", "sklearn", "nltk", "sacrebleu", "rouge_score", "pycocotools", "torch", "transformers"}
    assert not heavy & set(json.loads(ran.stdout))
