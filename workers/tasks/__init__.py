"""The registry of tasks. Adding a task is one file here and one line in ``TASKS``.

The registry holds names only, so that a manifest is checked without loading a data library; ``load_task`` imports.
"""

from __future__ import annotations

import importlib
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
        metrics: its scores, of ``quality.registry``; the first is the default.
        lower_is_better: the metrics among them for which less is more.
    """

    module: str
    families: tuple[str, ...]
    datasets: tuple[str, ...]
    tiny: str
    metrics: tuple[str, ...]
    lower_is_better: frozenset[str] = frozenset()


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
    "dialogue-summarisation": TaskInfo(
        module="workers.tasks.dialogue_summarisation",
        families=("seq2seq", "text-generation"),
        datasets=("samsum", "dialogues-tiny"),
        tiny="dialogues-tiny",
        metrics=("rougel", "rouge1", "rouge2", "rougelsum"),
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
    "text-classification": TaskInfo(
        module="workers.tasks.text_classification",
        families=("text-classification", "seq2seq", "text-generation"),
        datasets=("sst2", "imdb", "reviews-tiny"),
        tiny="reviews-tiny",
        metrics=("accuracy", "f1_macro"),
    ),
    "text-to-sql": TaskInfo(
        module="workers.tasks.text_to_sql",
        families=("text-generation", "seq2seq"),
        datasets=("synthetic_text_to_sql", "questions-tiny"),
        tiny="questions-tiny",
        metrics=("execution_accuracy", "exact_match"),
    ),
    "token-classification": TaskInfo(
        module="workers.tasks.token_classification",
        families=("token-classification",),
        datasets=("conll2003", "wikiann", "names-tiny"),
        tiny="names-tiny",
        metrics=("entity_f1", "entity_precision", "entity_recall"),
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


def load_task(name: str, dataset: str | None, seed: int, *, offline: bool = True) -> TaskData:
    """Import the task and load its data.

    Args:
        name: of ``TASKS``.
        dataset: of the task's; ``None``: its default.
        seed: the job's.
        offline: whether the default is the data set that needs no network.

    Raises:
        UnknownNameError: no such task or data set.
        JobError: the data cannot be had.
    """
    info = task_info(name)
    chosen = dataset or (info.tiny if offline else info.datasets[0])
    if chosen not in info.datasets:
        raise UnknownNameError(f"data set of task {name}", chosen, info.datasets)
    module = cast("TaskModule", importlib.import_module(info.module))
    return module.load(chosen, seed)
