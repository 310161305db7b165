"""ROUGE, BLEU and METEOR, against their own packages' published examples."""

from __future__ import annotations

import nltk
import pytest

from workers.errors import UnknownNameError
from workers.quality.overlap import evaluate, sentences_on_lines


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rouge2'"):
        evaluate("rouge22", ["a"], ["a"])


@pytest.mark.parametrize(
    ("name", "reference", "prediction", "expected"),
    [
        # rouge-score, rouge_scorer_test.py: testRouge1, ...2, ...LNonConsecutive, ...LSumSummaryLevel.
        ("rouge1", "testing one two", "testing", 1 / 2),
        ("rouge2", "testing one two", "testing one", 2 / 3),
        ("rougel", "testing one two", "testing two", 4 / 5),
        ("rougelsum", "w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", 8 / 15),
    ],
)
def test_rouge_agrees_with_its_package_s_own_examples(name, reference, prediction, expected) -> None:
    assert evaluate(name, [prediction], [reference]).value == pytest.approx(expected, rel=1e-12)


def test_rouge_compares_stems() -> None:
    assert evaluate("rouge1", ["training models"], ["trained model"]).value == 1.0


def test_rouge_takes_the_best_reference() -> None:
    assert evaluate("rouge1", ["one two"], [["three four", "one two"]]).value == 1.0


def test_rouge_lsum_compares_sentences_where_rouge_l_compares_the_whole() -> None:
    # Two sentences in the other order: each is found whole, but only three of six words lie in one sequence.
    said, true = "One two three. Four five six.", "Four five six. One two three."
    assert evaluate("rougelsum", [said], [true]).value == 1.0
    assert evaluate("rougel", [said], [true]).value == 0.5


def test_sentences_stay_on_the_lines_they_have() -> None:
    assert sentences_on_lines("One. Two\nThree") == "One. Two\nThree"
    assert sentences_on_lines("One. Two! 3.5 is a number?\n") == "One.\nTwo!\n3.5 is a number?"


def test_bleu_agrees_with_the_example_of_sacrebleu_s_readme() -> None:
    said = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    first = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    second = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    result = evaluate("bleu", said, list(zip(first, second, strict=True)))
    assert result.value is not None
    assert round(result.value, 2) == 48.53
    assert "nrefs:2" in str(result.note)


def test_bleu_takes_items_with_different_numbers_of_references() -> None:
    said = ["The dog bit the man.", "It was not unexpected."]
    result = evaluate("bleu", said, [["A dog bit me.", "The dog bit the man."], "It was not unexpected."])
    assert result.value == pytest.approx(100, rel=1e-12)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # NLTK, test/meteor.doctest, after the three examples of Wikipedia's article.
        ("The cat sat on the mat", 0.9977),
        ("on the mat sat the cat", 0.5),
        ("The cat was sat on the mat", 0.9654),
    ],
)
def test_meteor_agrees_with_nltk_s_own_examples(said: str, expected: float) -> None:
    result = evaluate("meteor_stem", [said], ["The cat sat on the mat"])
    assert result.value is not None
    assert round(result.value, 4) == expected


def test_meteor_of_two_chunks_is_what_the_formula_says() -> None:
    # Stems: "create or update", "a", "set" match: 5 of 9 words said, 5 of 6 wanted; chunks "create or update a" and
    # "set". P = 5/8, R = 5/6, F = 10PR/(R + 9P), penalty 0.5 (2/5)³.
    p, r = 5 / 8, 5 / 6
    expected = 10 * p * r / (r + 9 * p) * (1 - 0.5 * (2 / 5) ** 3)
    result = evaluate("meteor_stem", ["creates or updates a virtual machine scale set"], ["create or update a vm set"])
    assert result.value == pytest.approx(expected, rel=1e-12)
    assert round(expected, 4) == 0.7806  # NLTK, test/meteor.doctest, issue 2751


def test_meteor_without_wordnet_is_unknown_and_says_what_does_without(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    result = evaluate("meteor", ["a cat"], ["a cat"])
    assert result.value is None
    assert "WordNet is not installed here" in str(result.reason)
    assert "meteor_stem does without" in str(result.reason)


class TwoWords:
    """A WordNet of one set of synonyms. Models what NLTK's METEOR asks of it, and no relations between sets."""

    words = ("car", "auto", "motor_car")

    def ensure_loaded(self) -> None:
        """It is here."""

    def synsets(self, word: str) -> list[TwoWords]:
        return [self] if word in self.words else []

    def lemmas(self) -> list[Lemma]:
        return [Lemma(word) for word in self.words]


class Lemma(str):
    """A word of a set of synonyms."""

    __slots__ = ()

    def name(self) -> str:
        return str(self)


def test_meteor_matches_synonyms_where_wordnet_is_installed(monkeypatch) -> None:
    monkeypatch.setattr(nltk.corpus, "wordnet", TwoWords())
    result = evaluate("meteor", ["a red auto"], ["a red car"])
    # All three words match in one chunk: 1 - 0.5 (1/3)³. (NLTK looks up stems: "automobile" would not be found.)
    assert result.value == pytest.approx(1 - 0.5 / 27, rel=1e-12)
    assert "WordNet" in str(result.note)
    assert evaluate("meteor_stem", ["a red auto"], ["a red car"]).value < 0.7
