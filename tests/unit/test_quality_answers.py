"""Short answers, against SQuAD's rules and the VQA evaluation's, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import UnknownNameError
from workers.quality.answers import evaluate, squad_normalised, vqa_normalised


def one(name: str, said: str, *answers: str) -> float | None:
    return evaluate(name, [said], [answers]).value


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'exact_match'"):
        evaluate("exact-match", ["a"], ["a"])


def test_squad_drops_case_punctuation_articles_and_space() -> None:
    assert squad_normalised("  The  Quick-brown (fox), an A. ") == "quickbrown fox"


def test_an_exact_match_is_one_after_normalisation() -> None:
    assert one("exact_match", "the Eiffel Tower.", "Louvre", "Eiffel tower") == 1
    assert one("exact_match", "Eiffel", "Eiffel tower") == 0


def test_token_f1_counts_common_words() -> None:
    # Said: "big eiffel tower in paris" (5). Wanted: "eiffel tower" (2). Common 2: P 2/5, R 1, F1 4/7.
    assert one("token_f1", "the big Eiffel Tower in Paris", "Eiffel Tower") == pytest.approx(4 / 7, rel=1e-12)


def test_token_f1_counts_a_repeated_word_as_often_as_both_have_it() -> None:
    # Common: one "no". P 1/3, R 1/1.
    assert one("token_f1", "no no no", "no") == pytest.approx(1 / 2, rel=1e-12)


@pytest.mark.parametrize("name", ["token_f1", "exact_match"])
def test_no_answer_is_right_only_where_there_is_none(name: str) -> None:
    assert one(name, "", "") == 1
    assert one(name, "the", "") == 1
    assert one(name, "something", "") == 0


@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_answers(agreeing: int, expected: float) -> None:
    # Leaving out one of the k who agree leaves k - 1, one of the others k: (k min(1, (k-1)/3) + (10-k) min(1, k/3))/10.
    answers = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert one("vqa_accuracy", "yes", *answers) == pytest.approx(expected, rel=1e-12)


def test_vqa_accuracy_of_fewer_people_than_its_rule_needs_is_unknown() -> None:
    result = evaluate("vqa_accuracy", ["yes", "yes"], ["yes", ["yes"] * 4])
    assert (result.value, result.per_item) == (1, (None, 1))
    assert result.note == "1 of 2 items could not be scored and are left out"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two dogs", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("red/blue", "red blue"),
        ("red / blue", "red blue"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("t-shirt\n", "t shirt"),
        ("St. John", "st john"),
    ],
)
def test_vqa_answers_are_normalised(text: str, expected: str) -> None:
    assert vqa_normalised(text) == expected


def test_pathvqa_answers_are_equal_but_for_case_and_space() -> None:
    assert one("vqa_exact", " Squamous  cell carcinoma", "squamous cell carcinoma") == 1
    assert one("vqa_exact", "squamous-cell carcinoma", "squamous cell carcinoma") == 0


@given(st.lists(st.tuples(st.text(max_size=12), st.lists(st.text(max_size=12), min_size=1, max_size=3)), min_size=1))
def test_answers_score_between_nothing_and_all_and_the_reference_scores_all(pairs) -> None:
    for name in ("exact_match", "token_f1", "vqa_exact"):
        result = evaluate(name, [said for said, _ in pairs], [answers for _, answers in pairs])
        assert result.per_item is not None
        assert all(item is not None and 0 <= item <= 1 for item in result.per_item)
        assert evaluate(name, [answers[0] for _, answers in pairs], [answers for _, answers in pairs]).value == 1
