"""CIDEr and CIDEr-D, against values worked out by hand on two images. Every n-gram of a reference is of one of the two,
so each weighs its count times log 2, and log 2 cancels in every cosine."""

from __future__ import annotations

import math

import pytest

from workers.errors import UnknownNameError
from workers.quality.captions import evaluate
from workers.quality.words import caption_words

BIRD, FISH = "red bird sings loudly", "blue fish swims slowly"


def fish(name: str, said: str) -> float:
    result = evaluate(name, [BIRD, said], [BIRD, FISH])
    assert result.per_item is not None
    assert result.per_item[0] == pytest.approx(10, rel=1e-12)
    assert result.per_item[1] is not None
    assert result.value == pytest.approx((10 + result.per_item[1]) / 2, rel=1e-12)
    return result.per_item[1]


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Known: cider, cider_d"):
        evaluate("spice", ["a"], ["a"])


@pytest.mark.parametrize("name", ["cider", "cider_d"])
def test_one_image_has_no_rarity_and_so_no_score(name: str) -> None:
    result = evaluate(name, [BIRD], [BIRD])
    assert (result.value, result.per_item) == (None, None)
    assert "one item alone has none" in str(result.reason)


@pytest.mark.parametrize("name", ["cider", "cider_d"])
def test_a_wrong_word_costs_the_n_grams_it_is_in(name: str) -> None:
    # Of 4, 3, 2 and 1 n-grams, 3, 2, 1 and 0 are common.
    assert fish(name, "blue fish swims fast") == pytest.approx(10 * (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4, rel=1e-12)


def test_cider_d_counts_a_repeated_word_once_and_cider_each_time() -> None:
    # Single words: (4, ...) · (1, 1, 1, 1) over norms 4 and 2; clipped to 1. No longer n-gram is common.
    assert fish("cider", "blue blue blue blue") == pytest.approx(10 * (4 / 8) / 4, rel=1e-12)
    assert fish("cider_d", "blue blue blue blue") == pytest.approx(10 * (1 / 8) / 4, rel=1e-12)


def test_only_cider_d_punishes_another_length() -> None:
    # One word more: cosines n/√((n+1)n) for 4, 3, 2, 1 common n-grams; lengths in bigrams 4 and 3.
    plain = 10 * sum(n / math.sqrt((n + 1) * n) for n in (4, 3, 2, 1)) / 4
    assert fish("cider", "blue fish swims slowly now") == pytest.approx(plain, rel=1e-12)
    assert fish("cider_d", "blue fish swims slowly now") == pytest.approx(plain * math.exp(-1 / 72), rel=1e-12)


def test_references_are_averaged_and_not_the_best_taken() -> None:
    result = evaluate("cider_d", [BIRD, FISH], [[BIRD], [FISH, "green eel hides well"]])
    assert result.per_item == pytest.approx((10, 5), rel=1e-12)


def test_a_word_every_image_has_weighs_nothing() -> None:
    result = evaluate("cider", ["the", "the"], ["the red bird", "the blue fish"])
    assert result.per_item == (0, 0)


def test_case_and_punctuation_do_not_count() -> None:
    assert caption_words('A "red" bird, don\'t wait!\nEnd.') == ["a", "red", "bird", "do", "n't", "wait", "end"]
