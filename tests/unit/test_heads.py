"""Families of encoders, a head for each task, and models that write in their place. Tiny models, real libraries."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from tests.unit.few import few_of
from workers.contract import Adapter
from workers.errors import JobError
from workers.quality.registry import evaluate
from workers.tasks import task_info
from workers.tasks.data import MASK, Question, Questions, Split, TaskData
from workers.training.adapters import adapt
from workers.training.examples import IGNORED
from workers.training.families import base_of, family_of
from workers.training.families.base import Base
from workers.training.families.masked_words import OWN_MASK, MaskedExamples, whole_texts
from workers.training.families.spans import SpanExamples, questions_and_texts
from workers.training.families.tokenizing import tokenizer_for, with_places
from workers.training.families.word_tags import OUTSIDE, WordTagExamples, first_tokens, sentences
from workers.training.loop import predict
from workers.training.models import MODELS, model_info
from workers.training.steps import StepResult

CPU = torch.device("cpu")
BERT = MODELS["tiny/bert"]
HEADS = ("token-classification", "question-answering", "masked-language-modelling")
ENCODERS = [(task, name) for task in HEADS for name in ("tiny/bert", "tiny/distilbert")]
CASES = [
    *ENCODERS,
    *[(task, name) for task in ("text-classification", "question-answering") for name in ("tiny/t5", "tiny/qwen2")],
]
TEXTS = {
    "token-classification": sentences,
    "question-answering": questions_and_texts,
    "masked-language-modelling": whole_texts,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> dict[str, TaskData]:
    return few_of({task for task, _ in CASES})


@pytest.fixture(scope="module")
def tokenizers(data: dict[str, TaskData]) -> dict[str, PreTrainedTokenizerBase]:
    found = {task: tokenizer_for(BERT, data[task], ends=True, texts=texts) for task, texts in TEXTS.items()}
    found["masked-language-modelling"].add_special_tokens({"mask_token": OWN_MASK})
    return found


def built(data: dict[str, TaskData], task: str, name: str) -> Base:
    return base_of(task_info(task).families, MODELS[name], data[task], seed=0)


def ignore(result: StepResult) -> None:
    """Who does not care about steps."""


def configured(folder: Path, **configuration: object) -> str:
    """A folder that has a model's configuration and no more."""
    (folder / "config.json").write_text(json.dumps(configuration))
    return str(folder)


# What cannot be


def test_a_tokenizer_that_does_not_tell_where_its_tokens_are_is_refused() -> None:
    with pytest.raises(JobError, match=r"tokenizer of google/byt5-small does not tell where .* has a fast one"):
        with_places(ByT5Tokenizer(), "google/byt5-small")


def test_a_tokenizer_without_a_mask_is_refused(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    name = configured(tmp_path, model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    tokenizers["token-classification"].save_pretrained(tmp_path)
    with pytest.raises(JobError, match=r"has no mask, so .* choose a masked language model, such as BERT\."):
        base_of(("fill-mask",), model_info(name), data["masked-language-modelling"], seed=0)


def test_a_model_without_the_head_cannot_fill_masks(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    built(data, "token-classification", "tiny/bert").model.save_pretrained(tmp_path)
    tokenizers["masked-language-modelling"].save_pretrained(tmp_path)
    with pytest.raises(JobError, match=r"has no weights for cls\..* never trained as a fill-mask model; choose one"):
        base_of(("fill-mask",), model_info(str(tmp_path)), data["masked-language-modelling"], seed=0)


def test_a_model_of_the_hub_that_fits_no_family_of_the_task_is_refused_with_what_it_is(tmp_path: Path) -> None:
    name = configured(tmp_path, model_type="bert", architectures=["BertForMaskedLM"])
    with pytest.raises(JobError, match=r"model .*, a BertForMaskedLM, cannot do this task; choose a model of the fam"):
        family_of(("text-generation", "seq2seq"), model_info(name))


# Which family a model of the hub is taken as


@pytest.mark.parametrize(
    ("model_type", "architecture", "task", "family"),
    [
        ("t5", "T5ForConditionalGeneration", "text-classification", "seq2seq"),
        ("t5", "T5WithLMHeadModel", "text-to-sql", "seq2seq"),
        ("t5", "T5ForConditionalGeneration", "token-classification", "token-classification"),
        ("bloom", "BloomForCausalLM", "question-answering", "text-generation"),
        ("gpt2", "GPT2LMHeadModel", "text-classification", "text-generation"),
        ("qwen2", "Qwen2ForCausalLM", "text-to-sql", "text-generation"),
        ("bert", "BertForMaskedLM", "text-classification", "text-classification"),
        ("bert", "BertModel", "question-answering", "question-answering"),
        ("bart", "BartForSequenceClassification", "text-classification", "text-classification"),
        ("bart", "BartForSequenceClassification", "question-answering", "seq2seq"),
        ("llama", "LlamaForSequenceClassification", "text-classification", "text-classification"),
    ],
)
def test_a_model_of_the_hub_is_taken_as_what_its_configuration_names(
    tmp_path: Path, model_type: str, architecture: str, task: str, family: str
) -> None:
    name = configured(tmp_path, model_type=model_type, architectures=[architecture])
    assert family_of(task_info(task).families, model_info(name)) == family


@pytest.mark.parametrize(("task", "name"), CASES)
def test_a_model_of_the_registry_is_built_with_the_head_of_the_task(
    data: dict[str, TaskData], task: str, name: str
) -> None:
    ends = {"seq2seq": "ForConditionalGeneration", "text-generation": "ForCausalLM", "fill-mask": "ForMaskedLM"}
    family = family_of(task_info(task).families, MODELS[name])
    ends |= {"token-classification": "ForTokenClassification", "question-answering": "ForQuestionAnswering"}
    assert type(built(data, task, name).model).__name__.endswith(ends[family])


@pytest.mark.parametrize(("task", "name"), ENCODERS)
def test_a_model_in_a_folder_has_the_weights_that_were_saved_and_lora_takes_its_head_in(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase], tmp_path: Path, task: str, name: str
) -> None:
    base, info = built(data, task, name), model_info(str(tmp_path))
    base.model.save_pretrained(tmp_path)
    tokenizers[task].save_pretrained(tmp_path)
    again = base_of(task_info(task).families, info, data[task], seed=1)
    weights = again.model.state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in base.model.state_dict().items())
    assert len(predict(again.model, again.examples(data[task].test), batch_size=4, device=CPU, on_step=ignore)) == 9
    adapted = adapt(again.model, Adapter(method="lora", rank=2), info)
    touched = {key.split(".lora_A")[0].rsplit(".", 1)[-1] for key in adapted.state_dict() if "lora_A" in key}
    head = {"token-classification": {"classifier"}, "question-answering": {"qa_outputs"}}
    assert head.get(task, set()) <= touched, "a head that a model did not bring has to be learned"


# Batches, whatever the head


@pytest.mark.parametrize(("task", "name"), CASES)
def test_a_loss_of_a_batch_is_the_weighted_sum_of_the_losses_of_its_parts(
    data: dict[str, TaskData], task: str, name: str
) -> None:
    base, chosen = built(data, task, name), torch.arange(7)
    examples, model = base.examples(data[task].train), base.model.eval()

    def loss(part: torch.Tensor) -> float:
        batch = examples.batch(part, CPU)
        with torch.inference_mode():
            return float(batch.loss(model(**batch.inputs)))

    parts = chosen.tensor_split(3)
    weights = [examples.units(part) / examples.units(chosen) for part in parts]
    assert sum(weights) == pytest.approx(1, rel=1e-12)
    weighed = sum(weight * loss(part) for weight, part in zip(weights, parts, strict=True))
    assert weighed == pytest.approx(loss(chosen), rel=1e-5)


@pytest.mark.parametrize(("task", "name"), ENCODERS)
def test_the_loss_is_the_one_transformers_computes_of_the_same_batch(
    data: dict[str, TaskData], task: str, name: str
) -> None:
    base = built(data, task, name)
    # A question alone: transformers takes padding for a place where an answer may be.
    chosen = torch.arange(1 if task == "question-answering" else 6)
    batch = base.examples(data[task].train).batch(chosen, CPU)
    spans = {"start_positions": batch.targets[:, 0], "end_positions": batch.targets[:, 1]}
    with torch.inference_mode():
        theirs = base.model.eval()(
            **batch.inputs, **(spans if task == "question-answering" else {"labels": batch.targets})
        )
    assert float(batch.loss(theirs)) == pytest.approx(float(theirs.loss), rel=1e-6)


@pytest.mark.parametrize(("task", "name"), CASES)
def test_answers_do_not_depend_on_how_they_are_batched_and_can_be_scored(
    data: dict[str, TaskData], task: str, name: str
) -> None:
    base, test = built(data, task, name), data[task].test
    examples = base.examples(test)
    one, several = (predict(base.model, examples, batch_size=size, device=CPU, on_step=ignore) for size in (1, 9))
    assert one == several
    for metric in task_info(task).metrics:
        assert evaluate(metric, one, test.labels).value is not None


# Tags of words

WORDS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8)


@given(WORDS, st.booleans(), st.integers(1, 3))
def test_a_words_first_token_is_the_one_that_has_its_first_letter(words: list[str], spaced: bool, size: int) -> None:
    """Whether a token has the space before a word or not, and however words are cut into tokens."""
    places, wanted, start = [], [], 0
    for word in words:
        wanted.append(len(places))
        for first in range(0, len(word), size):
            begins = start + first - (1 if spaced and first == 0 and start else 0)
            places.append((begins, start + min(first + size, len(word))))
        start += len(word) + 1
    assert first_tokens(words, [*places, (0, 0)]) == wanted
    cut = places[: wanted[-1]]
    assert first_tokens(words, cut) == [*wanted[:-1], None]


def test_a_word_that_is_nothing_to_the_tokenizer_has_no_token() -> None:
    assert first_tokens(["ab", "\u200b", "cd"], [(0, 2), (5, 7)]) == [0, None, 1]


def test_the_first_token_of_a_word_carries_its_tag_and_nothing_else_does(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    split = Split(inputs=(("Eva", "Stonehenge", "left"),), labels=(("B-PER", "I-PER", "O"),))
    tokenizer = tokenizers["token-classification"]
    examples = WordTagExamples(split, tokenizer, tags=("B-PER", "I-PER", "O"), longest=64)
    batch = examples.batch(torch.arange(1), CPU)
    tokens, targets = batch.inputs["input_ids"][0], batch.targets[0].tolist()
    carried = [place for place, target in enumerate(targets) if target != IGNORED]
    assert [targets[place] for place in carried] == [0, 1, 2]
    assert len(tokens) > len(split.inputs[0]) + 1, "a word of several tokens is what is tested"
    pieces = [tokenizer.decode(tokens[first:last]) for first, last in zip(carried, [*carried[1:], -1], strict=True)]
    assert [piece.strip() for piece in pieces] == ["Eva", "Stonehenge", "left"]
    assert examples.units(torch.arange(1)) == 3


class Says(nn.Module):
    """A model that always says the same label, of five."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(
            logits=nn.functional.one_hot(torch.full_like(input_ids, self.label), 5) * attention_mask[..., None]
        )


@pytest.mark.parametrize(("label", "tags"), [(0, ("B-PER", "B-PER", OUTSIDE)), (3, (OUTSIDE,) * 3)])
def test_words_that_were_cut_off_and_labels_that_are_no_tags_are_of_no_entity(
    tokenizers: dict[str, PreTrainedTokenizerBase], label: int, tags: tuple[str, ...]
) -> None:
    split = Split(inputs=(("Ann", "met", "Benedict"),), labels=(("B-PER", "O", "B-PER"),))
    tokenizer = tokenizers["token-classification"]
    longest = len(tokenizer("Ann met")["input_ids"])
    examples = WordTagExamples(split, tokenizer, tags=("B-PER", "I-PER", "O", "[SEP]"), longest=longest)
    assert examples.answers(Says(label), torch.arange(1), CPU).values == [tags]
    assert examples.units(torch.arange(1)) == 2


def test_a_tagger_that_knows_the_tasks_tags_keeps_its_own_order_and_another_gets_a_new_head(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    task, model = data["token-classification"], built(data, "token-classification", "tiny/bert").model
    turned = ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"]
    model.config.id2label = dict(enumerate(turned))
    model.config.label2id = {tag: number for number, tag in enumerate(turned)}
    model.save_pretrained(tmp_path)
    tokenizers["token-classification"].save_pretrained(tmp_path)
    info = model_info(str(tmp_path))
    kept = base_of(("token-classification",), info, task, seed=1)
    assert torch.equal(kept.model.classifier.weight, model.classifier.weight)
    (said,) = kept.examples(task.test.first(1)).answers(Says(4), torch.arange(1), CPU).values
    assert set(said) == {"B-PER"}
    other = Split(inputs=task.train.inputs, labels=tuple(("B-DRUG",) * len(words) for words in task.train.inputs))
    anew = base_of(("token-classification",), info, dataclasses.replace(task, train=other, source=None), seed=1)
    assert anew.model.config.label2id == {"B-DRUG": 0}
    assert anew.model.classifier.weight.shape == (1, 64)
    assert torch.equal(anew.model.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)


def test_a_model_that_takes_fewer_tokens_than_the_task_gives_is_given_fewer(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    for task, examples in (("token-classification", WordTagExamples), ("masked-language-modelling", MaskedExamples)):
        tokenizer = copy.deepcopy(tokenizers[task])
        tokenizer.model_max_length = 7
        tags = {"tags": ("B-PER", "I-PER", "B-LOC", "I-LOC", "O")} if task == "token-classification" else {}
        batch = examples(data[task].train, tokenizer, longest=64, **tags).batch(torch.arange(9), CPU)
        assert batch.inputs["input_ids"].shape == (9, 7)
        assert int((batch.targets != IGNORED).any(dim=1).sum()) == 9


# Spans of answers


def asked(context: str, answer: str | None) -> Questions:
    start = None if answer is None else context.index(answer)
    given = Question(question="Where does Ann live?", context=context)
    return Questions(inputs=(given,), labels=((answer or "",),), starts=(start,))


def span_examples(split: Questions, tokenizer: PreTrainedTokenizerBase, **changes: object) -> SpanExamples:
    settings = {"longest": 64, "longest_answer": 8, "takes_kinds": False, "may_abstain": False, **changes}
    return SpanExamples(split, tokenizer, **settings)


class Points(nn.Module):
    """A model that points at the first token of one kind as the start, and of another as the end."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start, self.end = start, end
        self.windows = 0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        self.windows += len(input_ids)
        return SimpleNamespace(
            start_logits=(input_ids == self.start).float(), end_logits=(input_ids == self.end).float()
        )


def test_every_answer_is_found_again_at_its_tokens_however_long_its_text(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    tokenizer, split = tokenizers["question-answering"], data["question-answering"].train
    for longest in (96, 30):
        batch = span_examples(split, tokenizer, longest=longest).batch(torch.arange(len(split)), CPU)
        assert batch.inputs["input_ids"].shape[1] <= longest
        found = [
            tokenizer.decode(ids[start : end + 1]).strip()
            for ids, (start, end) in zip(batch.inputs["input_ids"], batch.targets.tolist(), strict=True)
        ]
        assert found == [answers[0] for answers in split.labels]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_answer_at_the_end_of_a_long_text_is_trained_on_and_found(
    tokenizers: dict[str, PreTrainedTokenizerBase], batch_size: int
) -> None:
    tokenizer = tokenizers["question-answering"]
    split = asked("Ann rests on Monday and works as a nurse, " * 8 + "but lives in Oslo.", "Oslo")
    examples = span_examples(split, tokenizer, longest=48)
    batch = examples.batch(torch.arange(1), CPU)
    ids = batch.inputs["input_ids"][0]
    start, end = batch.targets[0].tolist()
    assert tokenizer.decode(ids[start : end + 1]).strip() == "Oslo"
    model = Points(int(ids[start]), int(ids[end]))
    assert examples.answers(model, torch.zeros(batch_size, dtype=torch.long), CPU).values == ["Oslo"] * batch_size
    assert model.windows > 2 * batch_size


def test_a_question_longer_than_a_window_leaves_room_for_its_text(
    tokenizers: dict[str, PreTrainedTokenizerBase],
) -> None:
    split = asked("Ann lives in Oslo.", "Oslo")
    long = dataclasses.replace(split, inputs=(Question(question="Where " * 200, context=split.inputs[0].context),))
    tokenizer = tokenizers["question-answering"]
    batch = span_examples(long, tokenizer, longest=40).batch(torch.arange(1), CPU)
    start, end = batch.targets[0].tolist()
    assert tokenizer.decode(batch.inputs["input_ids"][0][start : end + 1]).strip() == "Oslo"


@pytest.mark.parametrize(("may_abstain", "answer"), [(True, ""), (False, "Ann lives in Oslo.")])
def test_only_where_texts_may_have_no_answer_is_none_given(
    tokenizers: dict[str, PreTrainedTokenizerBase], may_abstain: bool, answer: str
) -> None:
    tokenizer = tokenizers["question-answering"]
    examples = span_examples(asked("Ann lives in Oslo.", None), tokenizer, may_abstain=may_abstain, longest_answer=99)
    batch = examples.batch(torch.arange(1), CPU)
    assert batch.targets.tolist() == [[0, 0]]

    class Abstains(Points):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            first = torch.zeros(input_ids.shape)
            first[:, 0] = 1.0
            last = first * 1.0
            last[:, -2] = 0.5  # the last token of the text
            return SimpleNamespace(start_logits=first, end_logits=last)

    (said,) = examples.answers(Abstains(0, 0), torch.arange(1), CPU).values
    assert said == answer if may_abstain else said.endswith("Oslo.")


def test_an_answer_is_no_longer_than_it_may_be(tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    tokenizer = tokenizers["question-answering"]
    context = "Ann lives in Oslo, works as a nurse and rests on Monday."
    first, last = (tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("lives", "rests"))
    model = Points(first, last)
    short, long = (
        span_examples(asked(context, "Oslo"), tokenizer, longest_answer=longest).answers(model, torch.arange(1), CPU)
        for longest in (2, 60)
    )
    assert long.values[0].startswith("lives")
    assert "rests" in long.values[0]
    assert len(tokenizer(short.values[0], add_special_tokens=False)["input_ids"]) <= 3


# Hidden words


def test_every_token_of_a_hidden_word_is_masked_and_is_the_target(
    data: dict[str, TaskData], tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    tokenizer, split = tokenizers["masked-language-modelling"], data["masked-language-modelling"].train
    examples = MaskedExamples(split, tokenizer, longest=64)
    batch = examples.batch(torch.arange(len(split)), CPU)
    hides = batch.inputs["input_ids"] == tokenizer.mask_token_id
    assert torch.equal(hides, batch.targets != IGNORED)
    assert int(hides.sum()) == examples.units(torch.arange(len(split)))
    words = [tokenizer.decode(row[hidden]).strip() for row, hidden in zip(batch.targets, hides, strict=True)]
    assert words == list(split.labels)
    filled = torch.where(hides, batch.targets, batch.inputs["input_ids"])
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in filled]
    assert texts == whole_texts(split)


def test_a_long_text_is_cut_around_its_hidden_word(tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    many = "The old dog sleeps in the kennel . " * 20
    split = Split(inputs=(f"{many}A cat {MASK} near Ann . {many}", f"{MASK} cats"), labels=("meows", "Happy"))
    tokenizer = tokenizers["masked-language-modelling"]
    batch = MaskedExamples(split, tokenizer, longest=24).batch(torch.arange(2), CPU)
    assert batch.inputs["input_ids"].shape == (2, 24)
    hidden = [tokenizer.decode(row[row != IGNORED]).strip() for row in batch.targets]
    assert hidden == ["meows", "Happy"]
    assert "cat" in tokenizer.decode(batch.inputs["input_ids"][0])


# Models that write


@pytest.mark.parametrize("name", ["tiny/t5", "tiny/qwen2"])
def test_what_is_written_is_read_as_a_label(data: dict[str, TaskData], name: str) -> None:
    base = built(data, "text-classification", name)
    examples = base.examples(data["text-classification"].test)
    answers = examples.answers(base.model.eval(), torch.arange(9), CPU)
    assert set(answers.values) <= {-1, 0, 1}
    assert answers.generation is not None
    assert answers.generation.decode_tokens > 0
