"""Scores of one set of predictions: each gets its own encoder, and one that cannot be taken is null with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from workers.errors import UnknownNameError
from workers.quality.scoring import Encoders, NoEncoderError, take_scores

TEXTS = ("the red bird", "the bird sings")
MEANING = ("bert_score", "scibert_score", "mover_score")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of random weights, as save_pretrained leaves one."""
    folder = tmp_path_factory.mktemp("bert")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "bird", "sing", "##s")
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=10, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    return folder


def taken(names, encoders: Encoders, answers=TEXTS, **given):
    return {
        result.name: result
        for result in take_scores(names, answers=answers, labels=TEXTS, encoders=encoders, context={}, **given)
    }


def test_a_score_of_meaning_without_an_encoder_is_null_with_the_reason_and_the_others_are_taken() -> None:
    found = taken(("rouge1", *MEANING), Encoders({}, published=False))
    assert found["rouge1"].value == 1
    for name in MEANING:
        assert (found[name].value, found[name].reason) == (
            None,
            "no encoder: none is named, and the published one is fetched only for models of the hub; "
            f"name a folder under evaluation.encoders.{name}",
        )


def test_an_encoder_that_cannot_be_loaded_is_told_and_not_tried_again(tmp_path: Path, bert: Path) -> None:
    folder = tmp_path / "later"
    encoders = Encoders({"bert_score": str(folder)}, published=False)
    reason = taken(("bert_score",), encoders)["bert_score"].reason
    assert reason is not None
    assert reason.startswith(f"no encoder: The scoring model {folder} cannot be loaded (")
    assert reason.endswith("It is named under evaluation.encoders.bert_score.")
    folder.symlink_to(bert)
    with pytest.raises(NoEncoderError):
        encoders.of("bert_score")


def test_the_published_encoder_is_asked_of_the_hub_only_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reason = taken(("scibert_score",), Encoders({}, published=True))["scibert_score"].reason
    assert reason is not None
    assert reason.startswith("no encoder: The scoring model allenai/scibert_scivocab_uncased cannot be loaded (")


def test_each_score_takes_its_own_encoder_and_says_which(bert: Path) -> None:
    found = taken(MEANING, Encoders({"bert_score": str(bert), "mover_score": str(bert)}, published=False))
    assert found["bert_score"].value == pytest.approx(1, rel=1e-6)
    assert found["bert_score"].note == f"F1, without rarity weights, not rescaled; by {bert}, last layer"
    assert found["mover_score"].value == pytest.approx(1, rel=1e-6)
    assert found["scibert_score"].value is None


def test_an_encoder_that_cannot_be_used_leaves_its_score_null_and_the_others_taken(bert: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / "roberta-base"  # of which the tenth layer is taken; this model has two
    misnamed.symlink_to(bert)
    found = taken(("bert_score", "rouge1"), Encoders({"bert_score": str(misnamed)}, published=False))
    assert found["bert_score"].reason == ("The scoring model has layers 0 to 2, and 10 was asked for; name another.")
    assert found["rouge1"].value == 1


def test_an_encoder_is_loaded_once(bert: Path) -> None:
    encoders = Encoders({"bert_score": str(bert)}, published=False)
    assert encoders.of("bert_score") is encoders.of("bert_score")


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown score 'rogue'"):
        taken(("rogue",), Encoders({}, published=False))


def test_perplexity_is_of_the_likelihoods_and_unknown_without_them() -> None:
    encoders = Encoders({}, published=False)
    halves = [np.log([0.5, 0.5]), np.log([0.5])], [np.array([3, 4]), np.array([5])]
    assert taken(("perplexity",), encoders, likelihoods=halves)["perplexity"].value == pytest.approx(2, rel=1e-12)
    missing = taken(("perplexity", "rougel"), encoders)
    assert missing["perplexity"].reason == "how likely the model found the right answers was not kept"
    assert missing["rougel"].value == 1
