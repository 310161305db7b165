"""Data sets of the hub: which columns a task reads, and what to say where they cannot be had. The door of datasets."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.errors import JobError


@dataclass(frozen=True, kw_only=True)
class HubData:
    """A data set as a task reads it.

    Attributes:
        path: its id on the hub, or a folder with files named by their split (``train.jsonl``).
        config: its configuration; ``None``: it has one.
        revision: its branch or commit; ``None``: the main one.
        folder: the part of it that is read; ``None``: all.
        splits: the task's split to the data set's.
        columns: what the task reads.
        licence: as its card says.
    """

    path: str
    splits: Mapping[str, str]
    columns: tuple[str, ...]
    licence: str
    config: str | None = None
    revision: str | None = None
    folder: str | None = None


def rows_of(data: HubData, split: str) -> list[dict[str, Any]]:
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
            data.path, data.config, data_dir=data.folder, revision=data.revision, split=data.splits[split]
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
