"""Predictions and scores as files, so that scores can be taken again, others too, without a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.quality.result import ScoreResult
from workers.tasks.data import AnySplit, Boxes


def write_predictions(folder: Path, name: str, test: AnySplit, answers: Sequence[Any]) -> Path:
    """Write ``predictions-<name>.csv`` of labels; ``.jsonl`` of boxes, or with the input where inputs are texts."""
    if len(test) and isinstance(test.labels[0], Boxes):
        return _write_boxes(folder / f"predictions-{name}.jsonl", test.labels, answers)
    if isinstance(test.inputs, tuple):
        path = folder / f"predictions-{name}.jsonl"
        rows = zip(test.inputs, _plain(test.labels), answers, strict=True)
        lines = [
            json.dumps({"index": place, "input": given, "label": label, "prediction": answer}, ensure_ascii=False)
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


def write_scores(folder: Path, name: str, results: Iterable[ScoreResult]) -> Path:
    """Write ``scores-<name>.json``: each score's value, or the reason why there is none, and how it was obtained."""
    path = folder / f"scores-{name}.json"
    found = {result.name: {"value": result.value, "reason": result.reason, "note": result.note} for result in results}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_boxes(path: Path) -> tuple[list[Boxes], list[Boxes]]:
    """What was found and what is there, image by image, of a file of boxes: what a score of boxes compares."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [_boxes(row["prediction"]) for row in rows], [_boxes(row["label"]) for row in rows]


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


def _plain(labels: tuple[str, ...] | NDArray[np.int64]) -> list[object]:
    """An array's or a tuple's items as JSON and CSV take them."""
    return list(labels) if isinstance(labels, tuple) else list(labels.tolist())
