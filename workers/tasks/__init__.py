"""The registry of tasks. Adding a task is one file here and one line in ``TASKS``.

The registry holds names only, so that a manifest is checked without loading a data library; ``load_task`` imports.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from workers.errors import UnknownNameError

if TYPE_CHECKING:  # it is made of arrays, and numpy takes a tenth of a second that no check of a name should cost
    from workers.tasks.data import TaskData


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What is known of a task without loading it.

    Attributes:
        module: where its loader lives.
        families: of models that can do it (``training.families``); the first that fits a model of the hub is taken.
        datasets: names of its data sets; the first is the default.
        tiny: the one among them that needs no network: the default of models that need none either.
        metrics: its scores, of ``quality.registry``; the first is the default. None: it can only be measured as
            inference.
        lower_is_better: the metrics among them for which less is more.
        takes_folders: whether a folder of the user's may be named as the data set; the task's module says in what form.
    """

    module: str
    families: tuple[str, ...]
    datasets: tuple[str, ...]
    tiny: str
    metrics: tuple[str, ...]
    lower_is_better: frozenset[str] = frozenset()
    takes_folders: bool = False

    def has_dataset(self, name: str) -> bool:
        """Whether it is one of the task's data sets, or a folder (``/…``, ``./…``, ``../…``) where it takes those."""
        return name in self.datasets or (self.takes_folders and re.match(r"\.{0,2}/", name) is not None)


class TaskModule(Protocol):
    """What a task's module offers."""

    def load(self, dataset: str, seed: int) -> TaskData:
        """The data of one job; deterministic in its arguments."""
        ...


TASKS: dict[str, TaskInfo] = {
    "digits": TaskInfo(
        module="workers.tasks.digits",
        families=("image-classification",),
        datasets=("digits-rotated",),
        tiny="digits-rotated",
        metrics=("accuracy", "f1_macro"),
    ),
    "image-classification": TaskInfo(
        module="workers.tasks.image_classification",
        families=("image-classification",),
        datasets=("cifar10", "cifar100", "imagenet-1k", "shapes-tiny"),
        tiny="shapes-tiny",
        metrics=("accuracy", "f1_macro", "precision_macro", "recall_macro"),
    ),
    "object-detection": TaskInfo(
        module="workers.tasks.object_detection",
        families=("object-detection",),
        datasets=("coco", "cppe-5", "boxes-tiny"),
        tiny="boxes-tiny",
        metrics=("map", "map_50", "map_75"),
    ),
    "dialogue-summarisation": TaskInfo(
        module="workers.tasks.dialogue_summarisation",
        families=("seq2seq", "text-generation"),
        datasets=("samsum", "dialogues-tiny"),
        tiny="dialogues-tiny",
        metrics=("rougel", "rouge1", "rouge2", "rougelsum"),
    ),
    "image-captioning": TaskInfo(
        module="workers.tasks.image_captioning",
        families=("image-text-to-text",),
        datasets=("artbench", "scenes-tiny"),
        tiny="scenes-tiny",
        metrics=("bleu", "rougel", "cider", "cider_d", "meteor", "spice"),
    ),
    "image-generation": TaskInfo(
        module="workers.tasks.image_generation",
        families=("text-to-image",),
        datasets=("sd-prompts", "diffusiondb", "prompts-tiny"),
        tiny="prompts-tiny",
        metrics=(),
    ),
    "masked-language-modelling": TaskInfo(
        module="workers.tasks.masked_language_modelling",
        families=("fill-mask",),
        datasets=("wikitext-2", "c4", "animals-tiny"),
        tiny="animals-tiny",
        metrics=("exact_match",),
    ),
    "question-answering": TaskInfo(
        module="workers.tasks.question_answering",
        families=("question-answering", "seq2seq", "text-generation"),
        datasets=("squad", "squad_v2", "sciq", "facts-tiny"),
        tiny="facts-tiny",
        metrics=("exact_match", "token_f1"),
    ),
    "paper-highlights": TaskInfo(
        module="workers.tasks.paper_highlights",
        families=("seq2seq", "text-generation"),
        datasets=("mixsub", "highlights-tiny"),
        tiny="highlights-tiny",
        metrics=(
            "rougel",
            "rouge1",
            "rouge2",
            "rougelsum",
            "meteor",
            "meteor_stem",
            "mover_score",
            "bert_score",
            "scibert_score",
        ),
        takes_folders=True,
    ),
    "summarisation": TaskInfo(
        module="workers.tasks.summarisation",
        families=("seq2seq", "text-generation"),
        datasets=("cnn_dailymail", "xsum", "samsum", "reports-tiny"),
        tiny="reports-tiny",
        metrics=("rougel", "rouge1", "rouge2", "rougelsum"),
    ),
    "text-classification": TaskInfo(
        module="workers.tasks.text_classification",
        families=("text-classification", "seq2seq", "text-generation"),
        datasets=("sst2", "imdb", "rotten_tomatoes", "reviews-tiny"),
        tiny="reviews-tiny",
        metrics=("accuracy", "f1_macro"),
    ),
    "text-generation": TaskInfo(
        module="workers.tasks.text_generation",
        families=("text-generation", "seq2seq"),
        datasets=("wikitext", "bookcorpus", "oscar", "errands-tiny"),
        tiny="errands-tiny",
        metrics=("perplexity", "rougel", "bleu"),
        lower_is_better=frozenset({"perplexity"}),
    ),
    "text-to-sql": TaskInfo(
        module="workers.tasks.text_to_sql",
        families=("text-generation", "seq2seq"),
        datasets=("synthetic_text_to_sql", "questions-tiny"),
        tiny="questions-tiny",
        metrics=("execution_accuracy", "valid_efficiency", "exact_match"),
    ),
    "token-classification": TaskInfo(
        module="workers.tasks.token_classification",
        families=("token-classification",),
        datasets=("conll2003", "wikiann", "names-tiny"),
        tiny="names-tiny",
        metrics=("entity_f1", "entity_precision", "entity_recall"),
    ),
    "visual-question-answering": TaskInfo(
        module="workers.tasks.visual_question_answering",
        families=("image-text-to-text", "visual-question-answering"),
        datasets=("pathvqa", "vqav2", "scenes-tiny"),
        tiny="scenes-tiny",
        metrics=("vqa_exact", "vqa_accuracy", "exact_match", "token_f1", "bleu"),
    ),
}


def task_info(name: str) -> TaskInfo:
    """The entry of ``name``.

    Raises:
        UnknownNameError: lists the known tasks.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]


def unscored(task: object, kind: object) -> str | None:
    """Why a job of this kind cannot be: a task without a score has nothing to gain or to evaluate. ``None``: it can."""
    if kind == "inference" or task not in TASKS or TASKS[str(task)].metrics:
        return None
    return f"task {task} has no score, so there is nothing to {kind}: set kind: inference, which measures what it costs"


def load_task(name: str, dataset: str | None, seed: int, *, offline: bool = True) -> TaskData:
    """Import the task and load its data.

    Args:
        name: of ``TASKS``.
        dataset: of the task's, or a folder where it takes those; ``None``: its default.
        seed: the job's.
        offline: whether the default is the data set that needs no network.

    Raises:
        UnknownNameError: no such task or data set.
        JobError: the data cannot be had.
    """
    info = task_info(name)
    chosen = dataset or (info.tiny if offline else info.datasets[0])
    if not info.has_dataset(chosen):
        raise UnknownNameError(f"data set of task {name}", chosen, info.datasets)
    module = cast("TaskModule", importlib.import_module(info.module))
    return module.load(chosen, seed)
