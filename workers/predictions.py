"""Predictions and scores as files, so that scores can be taken again, others too, without a model."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import InputError
from workers.quality.result import ScoreResult
from workers.tasks.data import AnySplit, Boxes, PicturePrompts

PICTURES = 4
"""How many are kept of those that were made: enough to look at."""


def write_predictions(
    folder: Path,
    name: str,
    test: AnySplit,
    answers: Sequence[Any],
    *,
    besides: Mapping[str, Sequence[object]] = MappingProxyType({}),
) -> Path:
    """Write ``predictions-<name>.csv`` of labels; ``.jsonl`` of boxes, or with the text that was put to the model.

    Args:
        folder: the attempt's.
        name: ``baseline`` or ``evaluate``.
        test: what was asked.
        answers: one for each example.
        besides: column to what else scores need of each example; a path is written as from ``folder``.
    """
    if len(test) and isinstance(test.labels[0], Boxes):
        return _write_boxes(folder / f"predictions-{name}.jsonl", test.labels, answers)
    texts = test.inputs.prompts if isinstance(test.inputs, PicturePrompts) else test.inputs
    if isinstance(texts, tuple):
        path = folder / f"predictions-{name}.jsonl"
        rows = zip(texts, _plain(test.labels), answers, strict=True)
        more = {column: [_portable(value, folder) for value in values] for column, values in besides.items()}
        lines = [
            json.dumps(
                {"index": place, "input": given, "label": label, "prediction": answer}
                | {column: values[place] for column, values in more.items()},
                ensure_ascii=False,
            )
            for place, (given, label, answer) in enumerate(rows)
        ]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path
    path = folder / f"predictions-{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "label", "prediction"))
        writer.writerows(zip(range(len(test)), _plain(test.labels), answers, strict=True))
    return path


def write_pictures(folder: Path, answers: Iterable[object]) -> list[Path]:
    """Write ``picture-<n>.png`` of the first few answers that are pictures: ``(height, width, 3)`` uint8."""
    pictures = itertools.islice((answer for answer in answers if isinstance(answer, np.ndarray)), PICTURES)
    return [_written(folder / f"picture-{place}.png", picture) for place, picture in enumerate(pictures)]


def write_scores(folder: Path, name: str, results: Iterable[ScoreResult], *, keep: bool = False) -> Path:
    """Write ``scores-<name>.json``: each score's value, or the reason why there is none, and how it was obtained.

    With ``keep``, scores that the file has already and ``results`` has not stay.
    """
    path = folder / f"scores-{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if keep and path.exists() else {}
    found |= {result.name: {"value": result.value, "reason": result.reason, "note": result.note} for result in results}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What ``write_predictions`` wrote.

    Attributes:
        labels: what is right, of each example.
        answers: what the model said.
        besides: column to what else was written of each example; paths as they were written.
    """

    labels: Sequence[Any]
    answers: Sequence[Any]
    besides: Mapping[str, Sequence[Any]]


def read_predictions(path: Path) -> Predictions:
    """Read what ``write_predictions`` wrote.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                rows: list[dict[str, Any]] = [
                    {column: int(value) for column, value in row.items()} for row in csv.DictReader(file)
                ]
            else:
                rows = [json.loads(line) for line in file]
                if rows and "input" not in rows[0]:
                    rows = [{**row, **{side: _boxes(row[side]) for side in ("label", "prediction")}} for row in rows]
        columns = set(rows[0] if rows else ()) - {"index", "input", "label", "prediction"}
        return Predictions(
            labels=[row["label"] for row in rows],
            answers=[row["prediction"] for row in rows],
            besides={column: [row[column] for row in rows] for column in columns},
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as predictions: {type(error).__name__}: {error}. "
            "Name a file predictions-*.jsonl or .csv of an attempt's folder."
        ) from error


def _portable(value: object, folder: Path) -> object:
    """As JSON takes it; a path without the folder, which may be moved."""
    if isinstance(value, Path):
        return str(value.relative_to(folder) if value.is_relative_to(folder) else value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _write_boxes(path: Path, labels: Sequence[Boxes], answers: Sequence[Boxes]) -> Path:
    """A line for each image; corners are in its pixels: left, top, right, bottom."""
    pairs = enumerate(zip(labels, answers, strict=True))
    with path.open("w", encoding="utf-8") as file:
        for place, (label, answer) in pairs:
            row = {"index": place, "label": _objects(label), "prediction": _objects(answer)}
            file.write(f"{json.dumps(row)}\n")
    return path


def _objects(boxes: Boxes) -> list[dict[str, object]]:
    sure = [None] * len(boxes) if boxes.confidences is None else boxes.confidences.tolist()
    found = zip(boxes.labels.tolist(), boxes.corners.tolist(), sure, strict=True)
    return [
        {"label": label, "corners": corners} | ({} if confidence is None else {"confidence": confidence})
        for label, corners, confidence in found
    ]


def _boxes(objects: list[dict[str, Any]]) -> Boxes:
    sure = [one["confidence"] for one in objects if "confidence" in one]
    return Boxes(
        corners=np.asarray([one["corners"] for one in objects], dtype=np.float64).reshape(-1, 4),
        labels=np.asarray([one["label"] for one in objects], dtype=np.int64),
        confidences=np.asarray(sure, dtype=np.float64) if len(sure) == len(objects) else None,
    )


def _written(path: Path, picture: NDArray[np.uint8]) -> Path:
    from PIL import Image  # noqa: PLC0415 - only where there are pictures

    Image.fromarray(picture).save(path)
    return path


def _plain(labels: tuple[str, ...] | NDArray[np.int64]) -> list[object]:
    """An array's or a tuple's items as JSON and CSV take them."""
    return list(labels) if isinstance(labels, tuple) else list(labels.tolist())
