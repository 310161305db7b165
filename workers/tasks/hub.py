"""Data sets of the hub: which columns a task reads, and what to say where they cannot be had. The door of datasets."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.errors import JobError
from workers.tasks.data import AnySplit, AsText, TaskData, nothing_besides

Rows = list[dict[str, Any]]
Context = Callable[[Path, int], Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class HubData:
    """A data set as a task reads it.

    Attributes:
        path: its id on the hub, or a folder with files named by their split (``train.jsonl``).
        config: its configuration; ``None``: it has one.
        files: the data set's split to the one file of it that is read, where the whole would be too much.
        revision: its branch or commit; ``None``: the main one.
        folder: the part of it that is read; ``None``: all.
        splits: the task's split to the data set's, or to a part of it (``train[:20000]``).
        columns: what the task reads.
        licence: as its card says.
    """

    path: str
    splits: Mapping[str, str]
    columns: tuple[str, ...]
    licence: str
    config: str | None = None
    files: Mapping[str, str] | None = None
    revision: str | None = None
    folder: str | None = None


def hub_data(
    data: HubData,
    split_of: Callable[[Rows], AnySplit],
    *,
    classes: int = 0,
    longest_input: int,
    longest_answer: int = 128,
    context_of: Callable[[Rows], Context] = lambda _: nothing_besides,
    as_text: AsText | None = None,
) -> TaskData:
    """A task's data where all of it comes from the hub; so do its models, pretrained, hence no source split.

    ``split_of`` makes a split of its rows, ``context_of`` the context of the scores of those of ``test``; the rest is
    as in ``TaskData``.

    Raises:
        JobError: it cannot be had, or lacks a column or a split.
    """
    train, test = (rows_of(data, name) for name in ("train", "test"))
    return TaskData(
        source=None,
        train=split_of(train),
        test=split_of(test),
        classes=classes,
        longest_input=longest_input,
        longest_answer=longest_answer,
        context=context_of(test),
        as_text=as_text,
    )


def rows_of(data: HubData, split: str) -> Rows:
    """The columns of ``split`` (the task's name for it), a row each. Rows in which one of them is empty are left out.

    Raises:
        JobError: as ``table_of``.
    """
    rows = table_of(data, split).to_list()
    return [row for row in rows if all(row[name] not in (None, "") for name in data.columns)]


def table_of(data: HubData, split: str) -> Any:  # noqa: ANN401 - datasets is untyped
    """The columns of ``split`` (the task's name for it) as the library's own ``Dataset``, read when asked.

    Raises:
        JobError: it cannot be had, or lacks a column or the split; datasets is not installed.
    """
    try:
        import datasets  # noqa: PLC0415 - over a second, and only for data of the hub
    except ModuleNotFoundError as error:
        raise JobError(
            f"data set {data.path} needs the package datasets; pip install 'wattledger[train]' on this node."
        ) from error
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(
            data.path,
            data.config,
            data_dir=data.folder,
            data_files=data.files,
            revision=data.revision,
            split=data.splits[split],
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        fact = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise JobError(
            f"data set {data.path} cannot be loaded: {fact.rstrip('.')}. Give this node access to the hub (HF_TOKEN, "
            "where its terms must be accepted), or fetch it into this node's cache."
        ) from error
    missing = [name for name in data.columns if name not in found.column_names]
    if missing:
        raise JobError(
            f"data set {data.path} has no column {', '.join(missing)}; it has {', '.join(found.column_names)}. "
            "Choose another dataset, or name its columns in the task's module."
        )
    return found.select_columns(list(data.columns))


def class_names(table: Any, *column: str) -> tuple[str, ...]:  # noqa: ANN401 - datasets is untyped
    """The names of the classes in a column of ``table_of``, or in a field of one; none where it holds plain numbers."""
    feature = table.features
    for name in column:
        feature = feature[name]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(names or ())
