"""Models that read a picture and a prompt: batches, losses and answers of tiny ones, by transformers' own code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from workers.contract import Adapter, Training
from workers.errors import JobError
from workers.predictions import write_predictions
from workers.quality.registry import evaluate
from workers.tasks import TASKS, load_task, task_info, unscored
from workers.tasks.data import PicturePrompt, PicturePrompts, Split, TaskData
from workers.tasks.hub import HubData
from workers.training.adapters import adapt
from workers.training.examples import IGNORED
from workers.training.families import base_of, family_of
from workers.training.families.base import Base
from workers.training.families.processing import processor_for, rgb_of
from workers.training.load import build_base, fit_source
from workers.training.loop import fit, predict
from workers.training.models import MODELS, model_info
from workers.training.steps import StepResult

CPU = torch.device("cpu")
VQA = "visual-question-answering"
ALL = {"tiny/qwen2_vl": VQA, "tiny/mllama": VQA, "tiny/blip": VQA, "tiny/blip-vqa": VQA}
LOGITS = ("tiny/qwen2_vl", "tiny/mllama", "tiny/blip")
"""BLIP's answerer gives none."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> TaskData:
    """A few questions of unlike lengths, to look at and not to learn from."""
    task = load_task(VQA, None, seed=0)
    assert task.source is not None
    return dataclasses.replace(
        task, source=task.source.first(20), train=task.train.first(20), test=task.test.first(7), longest_answer=6
    )


def built(data: TaskData, name: str) -> Base:
    return base_of(task_info(VQA).families, MODELS[name], data, seed=0)


def ignore(result: StepResult) -> None:
    """Who does not care about steps."""


# What cannot be


def test_a_model_without_an_image_processor_is_told_apart(data: TaskData, tmp_path: Path) -> None:
    from workers.training.families.tokenizing import tokenizer_for

    model = build_base(MODELS["tiny/qwen2"], seed=0, more={"vocab_size": 600})
    model.save_pretrained(tmp_path)
    tokenizer_for(MODELS["tiny/t5"], data, ends=True).save_pretrained(tmp_path)
    with pytest.raises(JobError, match=r"model \S+ (has no image processor|cannot be loaded)"):
        base_of(("image-text-to-text",), model_info(str(tmp_path)), data, seed=0)


def test_a_question_that_is_too_long_is_a_fact_and_a_remedy(data: TaskData) -> None:
    long = Split(
        inputs=PicturePrompts(pictures=data.train.inputs.pictures[:1], prompts=("why? " * 300,)), labels=("so",)
    )
    for name in ("tiny/qwen2_vl", "tiny/blip", "tiny/blip-vqa"):
        examples = built(data, name).examples(long)
        with pytest.raises(JobError, match=r"\d+ tokens, .*reads (256|64) at most\. Choose a model that reads more"):
            examples.batch(torch.arange(1), CPU)


def test_a_typo_in_a_section_of_a_configuration_is_found(data: TaskData) -> None:
    info = MODELS["tiny/qwen2_vl"]
    wrong = dataclasses.replace(info, config={**info.config, "vision_config": {"dept": 2}})
    with pytest.raises(JobError, match=r"no qwen2_vl model can be built: .*has no vision_config\.dept"):
        build_base(wrong, seed=0)


def test_a_captioner_of_another_kind_is_refused(data: TaskData) -> None:
    with pytest.raises(JobError, match="a visual-question-answering model cannot do this task"):
        base_of(task_info("image-captioning").families, MODELS["tiny/blip-vqa"], data, seed=0)


# Pictures


def test_pictures_of_any_kind_become_three_channels_of_bytes() -> None:
    made = np.stack([np.full((4, 4), value, dtype=np.float32) for value in (-1.0, 0.0, 1.0)])
    one, other = rgb_of(
        [PicturePrompt(picture=made, prompt=""), PicturePrompt(picture=Image.new("L", (4, 4)), prompt="")]
    )
    assert one.shape == (4, 4, 3)
    assert one[0, 0].tolist() == [0, 128, 255]
    assert other.mode == "RGB"


def test_a_part_of_pictures_with_prompts_reads_no_picture() -> None:
    class Unreadable:
        def __getitem__(self, chosen: int | slice) -> object:
            assert isinstance(chosen, slice)
            return self

    inputs = PicturePrompts(pictures=Unreadable(), prompts=("a", "b", "c"))
    assert Split(inputs=inputs, labels=("x", "y", "z")).first(2).inputs.prompts == ("a", "b")


def test_predictions_keep_the_question_and_not_the_pixels(data: TaskData, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "evaluate", data.test, ["red"] * 7)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["input"] for row in rows] == list(data.test.inputs.prompts)
    assert set(rows[0]) == {"index", "input", "label", "prediction"}


# Batches


@pytest.mark.parametrize("name", ALL)
def test_a_loss_of_a_batch_is_the_weighted_sum_of_the_losses_of_its_parts(data: TaskData, name: str) -> None:
    base, chosen = built(data, name), torch.arange(7)
    examples, model = base.examples(data.train), base.model.eval()

    def loss(part: torch.Tensor) -> float:
        batch = examples.batch(part, CPU)
        with torch.inference_mode():
            return float(batch.loss(model(**batch.inputs)))

    weighed = sum(examples.units(part) / examples.units(chosen) * loss(part) for part in chosen.tensor_split(3))
    assert weighed == pytest.approx(loss(chosen), rel=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_the_loss_is_the_one_transformers_computes_of_the_same_answer(data: TaskData, name: str) -> None:
    base = built(data, name)
    batch = base.examples(data.train).batch(torch.arange(5), CPU)
    whole = {key: value for key, value in batch.inputs.items() if key != "logits_to_keep"}
    ids = batch.inputs["input_ids"]
    # Theirs are moved on by one by the model itself, and as long as what it reads.
    labels = torch.full_like(ids, IGNORED)
    labels[:, ids.shape[1] - batch.targets.shape[1] + 1 :] = batch.targets[:, :-1]
    with torch.inference_mode():
        ours, theirs = base.model.eval()(**batch.inputs), base.model(**whole, labels=labels)
    assert float(batch.loss(ours)) == pytest.approx(float(theirs.loss), rel=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_only_tokens_of_the_answer_are_targets_and_its_end_is_one(data: TaskData, name: str) -> None:
    base = built(data, name)
    examples, tokenizer = base.examples(data.train), processor_for(MODELS[name], data).tokenizer
    for place in range(4):
        batch = examples.batch(torch.tensor([place]), CPU)
        learned = batch.targets[batch.targets != IGNORED]
        assert learned[-1] == tokenizer.convert_tokens_to_ids("</s>")
        assert tokenizer.decode(learned, skip_special_tokens=True).strip() == data.train.labels[place]
        assert examples.units(torch.tensor([place])) == len(learned)


@pytest.mark.parametrize("name", ALL)
def test_a_picture_makes_a_difference(data: TaskData, name: str) -> None:
    base = built(data, name)
    for key, parameter in base.model.named_parameters():
        if key.endswith("_gate"):  # mllama's are drawn shut, and learn to open
            torch.nn.init.ones_(parameter)
    other = Split(
        inputs=PicturePrompts(pictures=-data.train.inputs.pictures, prompts=data.train.inputs.prompts),
        labels=data.train.labels,
    )
    losses = []
    for split in (data.train, other):
        batch = base.examples(split).batch(torch.arange(4), CPU)
        with torch.inference_mode():
            losses.append(float(batch.loss(base.model.eval()(**batch.inputs))))
    assert losses[0] != losses[1]


# Answers


@pytest.mark.parametrize("name", ALL)
def test_answers_do_not_depend_on_how_they_are_batched_and_are_counted_apart(data: TaskData, name: str) -> None:
    base, seen = built(data, name), []
    examples = base.examples(data.test)
    one, several = (predict(base.model, examples, batch_size=size, device=CPU, on_step=seen.append) for size in (1, 7))
    assert one == several
    for result in seen:
        assert result.generation is not None
        assert result.tokens == result.generation.prefill_tokens + result.generation.decode_tokens
        assert result.samples <= result.generation.decode_tokens <= 6 * result.samples


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tiny/qwen2_vl", "image-text-to-text"),
        ("tiny/mllama", "image-text-to-text"),
        ("tiny/blip", "image-text-to-text"),
        ("tiny/blip-vqa", VQA),
    ],
)
def test_a_model_in_a_folder_needs_no_torchvision_and_has_the_weights_that_were_saved(
    data: TaskData, tmp_path: Path, name: str, family: str
) -> None:
    base, processor = built(data, name), processor_for(MODELS[name], data)
    base.model.save_pretrained(tmp_path)
    for part in (processor.tokenizer, processor.image_processor):
        part.save_pretrained(tmp_path)
    if name != "tiny/qwen2_vl":  # theirs would want a part for videos
        processor.save_pretrained(tmp_path)
    info = model_info(str(tmp_path))
    assert family_of(task_info(VQA).families, info) == family
    again = base_of(task_info(VQA).families, info, data, seed=1)
    losses = []
    for one in (base, again):
        batch = one.examples(data.train).batch(torch.arange(3), CPU)
        with torch.inference_mode():
            losses.append(float(batch.loss(one.model.eval()(**batch.inputs))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(predict(again.model, again.examples(data.test), batch_size=4, device=CPU, on_step=ignore)) == 7


def test_a_chat_models_own_frame_is_put_around_a_question(data: TaskData, tmp_path: Path) -> None:
    base, processor = built(data, "tiny/qwen2_vl"), processor_for(MODELS["tiny/qwen2_vl"], data)
    processor.tokenizer.chat_template = (
        "{% for part in messages[0].content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|>"
        "<|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %} Say:"
    )
    base.model.save_pretrained(tmp_path)
    for part in (processor.tokenizer, processor.image_processor):
        part.save_pretrained(tmp_path)
    again = base_of(("image-text-to-text",), model_info(str(tmp_path)), data, seed=0)
    ids = again.examples(data.train).batch(torch.tensor([0]), CPU).inputs["input_ids"][0]
    said = processor.tokenizer.decode(ids)
    prompt, answer = data.train.inputs.prompts[0], data.train.labels[0]
    assert said == f"<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>{prompt} Say:{answer}</s>"


# Tasks


def test_several_peoples_answers_are_all_right_and_the_first_is_learned(data: TaskData) -> None:
    split = Split(inputs=data.train.inputs[:1], labels=(("dark red", *["red"] * 4),))
    examples = built(data, "tiny/blip").examples(split)
    learned = examples.batch(torch.arange(1), CPU).targets
    tokenizer = processor_for(MODELS["tiny/blip"], data).tokenizer
    assert tokenizer.decode(learned[learned != IGNORED], skip_special_tokens=True) == "dark red"
    assert evaluate("vqa_accuracy", ["red"], split.labels).value == 1.0


@pytest.mark.parametrize("name", ["image-captioning", VQA])
def test_tiny_pictures_are_fixed_and_those_held_out_are_never_learned_from(name: str) -> None:
    one, other = (load_task(name, None, seed=seed) for seed in (0, 1))
    assert one.source is not None
    assert np.array_equal(one.train.inputs.pictures, other.train.inputs.pictures)
    assert one.test.labels == other.test.labels
    held_out = {picture.tobytes() for picture in one.test.inputs.pictures}
    for split in (one.source, one.train):
        assert not held_out & {picture.tobytes() for picture in split.inputs.pictures}
        assert len(split) == len(split.inputs) == 1500


@pytest.mark.parametrize("task", [name for name, info in TASKS.items() if info.metrics])
def test_a_task_with_scores_can_be_of_any_kind(task: str) -> None:
    assert [unscored(task, kind) for kind in ("finetune", "evaluate", "inference")] == [None] * 3


def saved_pictures(folder: Path, **columns: list[object]) -> str:
    """A data set of the hub as a folder holds one: pictures and what is said of them."""
    import datasets

    pictures = [Image.new("RGB", (8, 8), (place, 0, 0)) for place in range(4)]
    made = datasets.Dataset.from_dict({"image": pictures, **columns}).cast_column("image", datasets.Image())
    made.to_parquet(folder / "train.parquet")
    made.to_parquet(folder / "test.parquet")
    return str(folder)


def test_questions_of_the_hub_come_with_their_pictures_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.tasks import visual_question_answering as task

    people = [[{"answer": "red", "answer_confidence": "yes"}, {"answer": "dark", "answer_confidence": "no"}]] * 4
    for name, answers in (("one", ["red"] * 4), ("several", people)):
        (tmp_path / name).mkdir()
        path = saved_pictures(tmp_path / name, question=["colour?"] * 4, answer=answers)
        data = HubData(
            path=path,
            splits={"train": "train", "test": "test"},
            columns=("image", "question", "answer"),
            licence="none",
        )
        monkeypatch.setitem(task.HUB, name, data)
        found = task.load(name, 0)
        assert found.test.labels[0] == ("red" if name == "one" else ("red", "dark"))
        assert found.test.inputs[2].prompt == "colour?"
        assert found.test.inputs[2].picture.getpixel((0, 0)) == (2, 0, 0)


def test_captions_of_the_hub_are_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.tasks import image_captioning as task

    path = saved_pictures(tmp_path, prompt=["a cat", "a dog", "a cow", "an owl"])
    splits = {"train": "train[:3]", "test": "train[3:]"}
    data = HubData(path=path, splits=splits, columns=("image", "prompt"), licence="none")
    monkeypatch.setitem(task.HUB, "artbench", data)
    found = task.load("artbench", 0)
    assert (len(found.train), found.test.labels, found.test.inputs.prompts) == (3, ("an owl",), ("",))


# All of it


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("task", "name"),
    [*(("image-captioning", name) for name in LOGITS), *((VQA, name) for name in ALL)],
)
def test_a_tiny_fine_tune_beats_its_base(task: str, name: str) -> None:
    data, info = load_task(task, None, seed=0), MODELS[name]
    base = base_of(task_info(task).families, info, data, seed=0)
    test = base.examples(data.test)
    assert data.source is not None
    fit_source(base.model, info, base.examples(data.source), seed=0, device=CPU, on_step=ignore)
    metric, scale = ("bleu", 100.0) if task == "image-captioning" else ("vqa_exact", 1.0)

    def score(model: nn.Module) -> float:
        answers = predict(model, test, batch_size=100, device=CPU, on_step=ignore)
        value = evaluate(metric, answers, data.test.labels).value
        assert value is not None
        return value / scale

    before = score(base.model)
    adapted = adapt(base.model, Adapter(method="lora", rank=8), info)
    training = Training(epochs=4, batch_size=32, learning_rate=5e-3)
    fit(adapted, base.examples(data.train), training, seed=0, device=CPU, on_step=ignore)
    assert before > 0, "a gain relative to nothing is none"
    assert score(adapted) > before + 0.08
