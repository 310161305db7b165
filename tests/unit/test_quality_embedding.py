"""BERTScore and MoverScore, on vectors small enough to work out by hand, and on a tiny BERT of random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from workers.errors import InputError, JobError, UnknownNameError
from workers.quality.embedding import Embedded, evaluate, layer_of, least_work
from workers.quality.encoder import embed_with, load_embed

EAST, NORTH, NORTHEAST = (2.0, 0.0), (0.0, 3.0), (1.0, 1.0)
PLANE = {
    "east": EAST,
    "north": NORTH,
    "both": NORTHEAST,
    "west": (-1.0, 0.0),
    ".": EAST,
    "##ern": NORTH,
    "nowhere": (0, 0),
}
ROOT = math.sqrt(1 / 2)
"""The cosine of 45°."""


def on_a_plane(texts: Sequence[str]) -> list[Embedded]:
    return [
        Embedded(
            tokens=tuple(text.split()), vectors=np.array([PLANE[word] for word in text.split()], float).reshape(-1, 2)
        )
        for text in texts
    ]


def bert(said: str, *true: str) -> float | None:
    return evaluate("bert_score", [said], [true], embed=on_a_plane).value


def mover(said: list[str], true: list[str]) -> tuple[float | None, ...]:
    result = evaluate("mover_score", said, true, embed=on_a_plane)
    assert result.per_item is not None
    return result.per_item


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'bert_score'"):
        evaluate("bertscore", ["east"], ["east"], embed=on_a_plane)


def test_an_embedding_that_leaves_texts_out_is_refused() -> None:
    with pytest.raises(InputError, match="answered 0 of 1 texts; it must answer each"):
        evaluate("bert_score", ["east"], ["east"], embed=lambda _texts: [])


@pytest.mark.parametrize("name", ["bert_score", "scibert_score", "mover_score"])
def test_a_text_that_is_empty_scores_nothing(name: str) -> None:
    assert evaluate(name, ["", "east"], ["east", ""], embed=on_a_plane).per_item == (0, 0)


def test_each_word_is_matched_with_the_nearest() -> None:
    # Precision: "both" is 45° from either: √½. Recall: each of two is 45° from "both": √½.
    assert bert("both", "east north") == pytest.approx(ROOT, rel=1e-12)
    # Precision (1 + 0)/2, recall 1: F1 2/3.
    assert bert("east north", "east") == pytest.approx(2 / 3, rel=1e-12)


def test_opposite_words_have_no_harmonic_mean_and_score_nothing() -> None:
    assert bert("west", "east") == 0
    # Precision √½, recall (√½ - 1)/2 < 0.
    assert bert("east", "both west") == 0


def test_a_word_without_a_vector_is_like_nothing() -> None:
    assert bert("nowhere", "east") == 0


def test_a_special_token_may_be_matched_and_does_not_count() -> None:
    def marked(texts: Sequence[str]) -> list[Embedded]:
        plain = [f"both {text}" for text in texts]
        return [Embedded(tokens=one.tokens, vectors=one.vectors, special=frozenset([0])) for one in on_a_plane(plain)]

    # Either word is 90° from the other and 45° from the special token before it.
    assert evaluate("bert_score", ["east"], ["north"], embed=marked).value == pytest.approx(ROOT, rel=1e-12)
    assert evaluate("mover_score", ["east"], ["north"], embed=marked).value == pytest.approx(1 - math.sqrt(2), rel=1e-9)


def test_bert_score_takes_the_best_reference() -> None:
    assert bert("east", "north", "both", "east") == pytest.approx(1, rel=1e-12)


def test_moving_a_word_costs_the_distance_of_unit_vectors() -> None:
    # All words weigh log(3/2): the other reference keeps them rare. East to north is √2, east to both 2 sin 22.5°.
    scores = mover(["east", "both"], ["north", "east"])
    assert scores == pytest.approx((1 - math.sqrt(2), 1 - 2 * math.sin(math.pi / 8)), rel=1e-9)


def test_half_a_text_is_half_the_work() -> None:
    assert mover(["east north", "west"], ["north", "east"])[0] == pytest.approx(1 - math.sqrt(2) / 2, rel=1e-9)


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    # Two references: "east" is in one, log(3/2); "north" and "west" in none, log 3. Said: "east north"; true: "east".
    share = math.log(3) / (math.log(3) + math.log(3 / 2))
    assert mover(["east north", "both"], ["east", "both"])[0] == pytest.approx(1 - share * math.sqrt(2), rel=1e-9)


def test_punctuation_and_later_pieces_of_a_word_weigh_nothing() -> None:
    assert mover(["east ##ern .", "both"], ["east", "both"])[0] == pytest.approx(1, rel=1e-9)


def test_words_of_no_weight_weigh_alike() -> None:
    # Both are in every reference, so rarity is 0 and each is half of its text.
    assert mover(["east", "north"], ["east north", "north east"])[0] == pytest.approx(1 - math.sqrt(2) / 2, rel=1e-9)


def test_a_model_that_answers_the_same_to_everything_does_not_score_all() -> None:
    assert max(mover(["west", "west"], ["east", "north"])) < 0  # type: ignore[type-var]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_least_work_is_a_distance(rows: int, columns: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    supply, demand = chance.dirichlet(np.ones(rows)), chance.dirichlet(np.ones(columns))
    one, other = chance.normal(size=(rows, 3)), chance.normal(size=(columns, 3))
    distance = np.linalg.norm(one[:, None] - other[None], axis=2)
    work = least_work(supply, demand, distance)
    assert work == pytest.approx(least_work(demand, supply, distance.T), rel=1e-6, abs=1e-9)
    # Never under the distance of the means, never over what moving everything everywhere costs.
    assert np.linalg.norm(supply @ one - demand @ other) - 1e-9 <= work <= supply @ distance @ demand + 1e-9


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "bird", "sing", "##s"]))
    return BertTokenizer.from_pretrained(str(path.parent))


@pytest.fixture(scope="module")
def model() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10,
    )
    return BertModel(config)


def test_a_model_that_is_not_there_ends_the_job_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"The scoring model .*none cannot be loaded .*name the folder of another"):
        load_embed(str(tmp_path / "none"), layer=1)


def test_a_layer_the_model_does_not_have_is_refused(model, tokenizer) -> None:
    with pytest.raises(JobError, match="The scoring model has layers 0 to 2, and 3 was asked for; name another"):
        embed_with(model, tokenizer, layer=3)(["the bird"])


def test_tokens_come_alike_in_any_batch_and_special_ones_are_told_apart(model, tokenizer) -> None:
    texts = ["the red bird sings", "", "bird"]
    together, alone = embed_with(model, tokenizer), embed_with(model, tokenizer, batch_size=1)
    answers = together(texts)
    assert answers[0].tokens == ("[CLS]", "the", "red", "bird", "sing", "##s", "[SEP]")
    assert [[one.tokens[place] for place in one.own] for one in answers] == [
        ["the", "red", "bird", "sing", "##s"],
        [],
        ["bird"],
    ]
    for one, other in zip(answers, alone(texts), strict=True):
        assert one.vectors.shape == (len(one.tokens), 16)
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)


def test_a_text_longer_than_the_model_takes_is_cut_where_the_tokenizer_names_no_limit(model, tokenizer) -> None:
    assert tokenizer.model_max_length > 1_000_000
    # Ten positions less the two RoBERTa sets aside.
    assert len(embed_with(model, tokenizer)(["bird " * 50])[0].tokens) == 8


@pytest.mark.parametrize("name", ["bert_score", "scibert_score", "mover_score"])
def test_a_tiny_bert_finds_equal_texts_equal_and_others_less_so(name: str, model, tokenizer) -> None:
    embed = embed_with(model, tokenizer, layer=1)
    result = evaluate(name, ["the red bird", "the bird"], ["the red bird", "red sings"], embed=embed)
    assert result.per_item is not None
    same, other = result.per_item
    assert same == pytest.approx(1, rel=1e-6)
    assert other is not None
    assert other < 0.99


def test_a_saved_model_is_loaded_by_its_folder(model, tokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_embed(str(tmp_path), layer=2)(["the red bird"])[0]
    kept = embed_with(model, tokenizer, layer=2)(["the red bird"])[0]
    assert loaded.tokens == kept.tokens
    np.testing.assert_allclose(loaded.vectors, kept.vectors, atol=1e-6)


def test_weights_in_pickles_alone_are_refused(model, tokenizer, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(JobError, match=r"The scoring model .* cannot be loaded .*, with safetensors, or name"):
        load_embed(str(tmp_path), layer=2)


def test_a_head_is_left_out_in_silence_and_a_layer_that_is_missing_is_refused(
    model, tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BertForSequenceClassification(model.config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    capsys.readouterr()
    load_embed(str(tmp_path), layer=2)
    assert capsys.readouterr().err == ""
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "encoder.layer.1" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"cannot be loaded \(its weights lack encoder\.layer\.1\."):
        load_embed(str(tmp_path), layer=2)


@pytest.mark.parametrize(
    ("score", "encoder", "layer"),
    [
        ("bert_score", "FacebookAI/roberta-large", 17),
        ("bert_score", "/models/roberta-large", 17),
        ("scibert_score", "allenai/scibert_scivocab_uncased", 8),
        ("bert_score", "owner/unlisted", -1),
        ("mover_score", "distilbert/distilbert-base-uncased", -1),
    ],
)
def test_the_layer_is_the_one_bert_score_s_authors_found_best_and_else_the_last(
    score: str, encoder: str, layer: int
) -> None:
    assert layer_of(score, encoder) == layer
