"""Tasks of encoders: what their data says is so, made here or read from the hub, and is put to models that write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from workers.errors import JobError
from workers.quality.entities import spans
from workers.quality.registry import evaluate
from workers.tasks import load_task, question_answering, text_classification, token_classification
from workers.tasks.data import MASK, Question, Questions, Split
from workers.tasks.hub import HubData, rows_of
from workers.tasks.masked_language_modelling import HUB as TEXTS
from workers.tasks.masked_language_modelling import hidden
from workers.tasks.question_answering import NO_ANSWER, answer_of
from workers.tasks.text_classification import CLASSES, NO_CLASS, asked, class_of


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def folder(path: Path, columns: tuple[str, ...], rows: Sequence[Mapping[str, object]]) -> HubData:
    """A data set of the hub, as its folder would be."""
    path /= "data"  # the cache is beside it, not within
    path.mkdir(parents=True)
    for split in ("train", "test"):
        (path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return HubData(path=str(path), splits={"train": "train", "test": "test"}, columns=columns, licence="CC0")


# What cannot be


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(
    ("task", "dataset", "column"),
    [
        ("token-classification", "wikiann", "ner_tags"),
        ("question-answering", "squad", "answers"),
        ("masked-language-modelling", "wikitext-2", "text"),
        ("text-classification", "imdb", "label"),
    ],
)
def test_a_data_set_without_what_the_task_reads_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, dataset: str, column: str
) -> None:
    hubs = {
        "token-classification": token_classification.HUB,
        "question-answering": question_answering.HUB,
        "masked-language-modelling": TEXTS,
        "text-classification": text_classification.HUB,
    }
    columns = hubs[task][dataset].columns
    given = {name: "something" for name in columns if name != column} | {"other": "something"}
    monkeypatch.setitem(hubs[task], dataset, folder(tmp_path, columns, [given]))
    with pytest.raises(JobError, match=rf"has no column {column}; it has .*other"):
        load_task(task, dataset, seed=0)


@pytest.mark.parametrize("answer", ["", "great", "positive or negative", "not positive", "1"])
def test_an_answer_that_is_no_label_is_wrong_and_never_an_error(answer: str) -> None:
    assert class_of(answer) == NO_CLASS
    for metric in ("accuracy", "f1_macro"):
        value = evaluate(metric, [class_of(answer), 1], np.array([0, 1])).value
        assert value is not None
        assert 0 < value < 1


@pytest.mark.usefixtures("_own_cache")
def test_a_part_of_one_file_is_read_where_a_data_set_is_too_large(tmp_path: Path) -> None:
    whole = folder(tmp_path, ("text",), [{"text": f"line {number}"} for number in range(5)])
    (Path(whole.path) / "more.jsonl").write_text("not even JSON")
    part = dataclasses.replace(whole, files={"train": "train.jsonl"}, splits={"train": "train[:2]"})
    assert rows_of(part, "train") == [{"text": "line 0"}, {"text": "line 1"}]


# Classes as words


@pytest.mark.parametrize(("answer", "label"), [("positive", 1), (" Positive.", 1), ("NEGATIVE", 0), ("negative!", 0)])
def test_a_label_is_read_whatever_its_case_and_marks(answer: str, label: int) -> None:
    assert class_of(answer) == label


def test_a_review_is_asked_for_with_the_word_of_its_class() -> None:
    pairs = asked(Split(inputs=("so dull",), labels=np.array([0])))
    assert pairs.labels == ("negative",)
    assert pairs.inputs == ("Is this review positive or negative?\nso dull\nSentiment:",)
    assert [class_of(word) for word in CLASSES] == [0, 1]


# Tags


def test_tiny_sentences_have_a_bio_tag_for_each_word_and_the_same_name_is_a_person_or_a_place() -> None:
    data = load_task("token-classification", None, seed=0)
    kinds: dict[str, set[str]] = {}
    for words, tags in zip(data.train.inputs, data.train.labels, strict=True):
        assert len(words) == len(tags)
        for kind, start, end in spans(tags):
            kinds.setdefault(" ".join(words[start:end]), set()).add(kind)
    assert {name for name, found in kinds.items() if len(found) == 2} == set(token_classification.EITHER)
    assert data.source is not None
    assert all(
        kind == "PER" or " ".join(words[start:end]) not in token_classification.EITHER
        for words, tags in zip(data.source.inputs, data.source.labels, strict=True)
        for kind, start, end in spans(tags)
    )


@pytest.mark.usefixtures("_own_cache")
def test_tags_of_the_hub_are_read_by_name_or_number_and_sentences_without_words_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, tags in (("conll2003", [1, 0, 7]), ("wikiann", ["B-PER", "O", "B-LOC"])):
        rows: list[dict[str, object]] = [
            {"tokens": ["Ann", "is", "Roman"], "ner_tags": tags},
            {"tokens": [], "ner_tags": []},
        ]
        monkeypatch.setitem(token_classification.HUB, name, folder(tmp_path / name, ("tokens", "ner_tags"), rows))
        data = load_task("token-classification", name, seed=0)
        assert data.train.inputs == (("Ann", "is", "Roman"),)
        assert data.train.labels == (("B-PER", "O", "B-MISC" if name == "conll2003" else "B-LOC"),)
        assert data.source is None


# Questions


def test_every_tiny_answer_stands_where_it_is_said_to() -> None:
    data = load_task("question-answering", None, seed=0)
    assert data.source is not None
    for split in (data.source, data.train, data.test):
        for given, answers, start in zip(split.inputs, split.labels, split.starts, strict=True):
            assert given.context[start:].startswith(answers[0])


@pytest.mark.usefixtures("_own_cache")
def test_questions_of_squad_keep_all_answers_and_those_without_one_have_the_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "question": "Where?",
            "context": "Ann is in Rome.",
            "answers": {"text": ["Rome", "in Rome"], "answer_start": [10, 7]},
        },
        {"question": "When?", "context": "Ann is in Rome.", "answers": {"text": [], "answer_start": []}},
    ]
    monkeypatch.setitem(question_answering.HUB, "squad_v2", folder(tmp_path, ("question", "context", "answers"), rows))
    test = load_task("question-answering", "squad_v2", seed=0).test
    assert test.inputs[0] == Question(question="Where?", context="Ann is in Rome.")
    assert (test.labels, test.starts) == ((("Rome", "in Rome"), ("",)), (10, None))
    assert [evaluate("exact_match", said, test.labels).value for said in (["in Rome", ""], ["Rome", "Rome"])] == [
        1,
        0.5,
    ]


@pytest.mark.usefixtures("_own_cache")
def test_answers_of_sciq_are_taken_as_they_stand_in_the_text_and_others_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": "What?", "support": "Quarks make it.", "correct_answer": "quarks"},
        {"question": "Who?", "support": "Nobody knows.", "correct_answer": "Newton"},
        {"question": "Why?", "support": "", "correct_answer": "gravity"},
    ]
    columns = ("question", "support", "correct_answer")
    monkeypatch.setitem(question_answering.HUB, "sciq", folder(tmp_path, columns, rows))
    train = load_task("question-answering", "sciq", seed=0).train
    assert (train.labels, train.starts) == ((("Quarks",),), (0,))


def test_no_answer_has_a_word_for_models_that_write() -> None:
    given = Questions(inputs=(Question(question="When?", context="Ann is in Rome."),), labels=(("",),), starts=(None,))
    assert question_answering.asked(given).labels == (NO_ANSWER,)
    assert [answer_of(text) for text in (NO_ANSWER, "Unanswerable.", "Rome")] == ["", "", "Rome"]


def test_the_first_questions_keep_where_their_answers_begin() -> None:
    test = load_task("question-answering", None, seed=0).test
    few = test.first(3)
    assert (few.inputs, few.labels, few.starts) == (test.inputs[:3], test.labels[:3], test.starts[:3])


# Hidden words


def test_one_word_of_a_text_is_hidden_and_texts_without_one_are_left_out() -> None:
    texts = [
        "",
        " = Heading = ",
        "It is so he or I am",
        "a [MASK] stands in this text here",
        "The dog barks at the cat .",
    ]
    split = hidden([{"text": text} for text in texts])
    assert len(split) == 1
    assert split.inputs[0].replace(MASK, split.labels[0]) == "The dog barks at the cat ."
    assert split.labels == ("barks",), "articles and short words are never hidden"


def test_the_same_words_are_hidden_each_time() -> None:
    rows = [{"text": f"Many different words stand within sentence number {number}"} for number in range(20)]
    assert hidden(rows) == hidden(rows)
    assert len(set(hidden(rows).labels)) > 1


def test_every_tiny_text_hides_what_follows_from_its_animal() -> None:
    data = load_task("masked-language-modelling", None, seed=0)
    assert data.source is not None
    from workers.tasks.masked_language_modelling import ANIMALS

    for split in (data.source, data.train, data.test):
        for text, word in zip(split.inputs, split.labels, strict=True):
            (animal,) = set(text.split()) & set(ANIMALS)
            assert text.count(MASK) == 1
            assert word in ANIMALS[animal]
