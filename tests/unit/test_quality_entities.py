"""Scores of named entities, against seqeval's published example and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import InputError, UnknownNameError
from workers.quality.entities import evaluate, spans

SENTENCES = st.lists(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=8), min_size=1)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'entity_f1'"):
        evaluate("entity-f1", [["O"]], [["O"]])


def test_a_tag_for_each_word_is_asked_for() -> None:
    with pytest.raises(InputError, match="Sentence 1 has 2 words and 1 predicted tags; give one for each"):
        evaluate("entity_f1", [["O"], ["O"]], [["O"], ["O", "O"]])


@pytest.mark.parametrize("tag", ["X-PER", "B-", "PER", "", "E-LOC"])
def test_a_tag_of_another_scheme_is_refused(tag: str) -> None:
    with pytest.raises(InputError, match="is not a BIO tag; write O, B-TYPE or I-TYPE"):
        evaluate("entity_f1", [[tag]], [["O"]])


def test_f1_agrees_with_the_example_of_seqeval_s_readme() -> None:
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    result = evaluate("entity_f1", said, true)
    assert (result.value, result.per_item) == (0.5, (0, 1))


def test_precision_is_of_what_was_predicted_and_recall_of_what_is_true() -> None:
    true = [["B-PER", "O", "B-LOC", "I-LOC"]]
    said = [["B-PER", "B-PER", "B-PER", "O"]]
    assert evaluate("entity_precision", said, true).value == pytest.approx(1 / 3, rel=1e-12)
    assert evaluate("entity_recall", said, true).value == pytest.approx(1 / 2, rel=1e-12)
    assert evaluate("entity_f1", said, true).value == pytest.approx(2 / 5, rel=1e-12)


def test_an_entity_begins_where_another_begins_or_the_type_changes() -> None:
    assert spans(["I-PER", "I-PER", "B-PER", "I-LOC", "O", "I-LOC"]) == {
        ("PER", 0, 2),
        ("PER", 2, 3),
        ("LOC", 3, 4),
        ("LOC", 5, 6),
    }


def test_sentences_without_entities_are_right_when_none_is_predicted() -> None:
    assert evaluate("entity_f1", [["O"]], [["O"]]).value == 1
    assert evaluate("entity_f1", [["B-PER"]], [["O"]]).value == 0


@given(SENTENCES)
def test_the_right_tags_score_all(sentences) -> None:
    for name in ("entity_f1", "entity_precision", "entity_recall"):
        assert evaluate(name, sentences, sentences).value == 1


@given(SENTENCES, SENTENCES)
def test_f1_lies_between_precision_and_recall_whatever_the_order(said, true) -> None:
    pairs = [(mine[: len(other)], other[: len(mine)]) for mine, other in zip(said, true, strict=False)]
    first = {n: evaluate(f"entity_{n}", *zip(*pairs, strict=True)).value for n in ("f1", "precision", "recall")}
    turned = {n: evaluate(f"entity_{n}", *zip(*pairs[::-1], strict=True)).value for n in ("f1", "precision", "recall")}
    assert first == turned
    low, high = sorted((first["precision"], first["recall"]))
    assert low - 1e-12 <= first["f1"] <= high + 1e-12
