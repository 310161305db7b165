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
        datasets: names of its data sets; the first is the default.
        metrics: its scores; the first is the default.
        lower_is_better: the metrics among them for which less is more.
    """

    module: str
    datasets: tuple[str, ...]
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
        datasets=("digits-rotated",),
        metrics=("accuracy", "f1_macro"),
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


def load_task(name: str, dataset: str | None, seed: int) -> TaskData:
    """Import the task and load its data.

    Raises:
        UnknownNameError: no such task or data set.
    """
    info = task_info(name)
    chosen = dataset or info.datasets[0]
    if chosen not in info.datasets:
        raise UnknownNameError(f"data set of task {name}", chosen, info.datasets)
    module = cast("TaskModule", importlib.import_module(info.module))
    return module.load(chosen, seed)
