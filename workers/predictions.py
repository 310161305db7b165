"""Predictions and scores as files, so that scores can be taken again, others too, without a model."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.quality.result import ScoreResult
from workers.tasks.data import AnySplit, PicturePrompts

PICTURES = 4
"""How many are kept of those that were made: enough to look at."""


def write_predictions(folder: Path, name: str, test: AnySplit, answers: Sequence[Any]) -> Path:
    """Write ``predictions-<name>.csv`` of labels, or ``.jsonl`` with the input where it is text (or has a prompt)."""
    texts = test.inputs.prompts if isinstance(test.inputs, PicturePrompts) else test.inputs
    if isinstance(texts, tuple):
        path = folder / f"predictions-{name}.jsonl"
        rows = zip(texts, _plain(test.labels), answers, strict=True)
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


def write_pictures(folder: Path, answers: Iterable[object]) -> list[Path]:
    """Write ``picture-<n>.png`` of the first few answers that are pictures: ``(height, width, 3)`` uint8."""
    pictures = itertools.islice((answer for answer in answers if isinstance(answer, np.ndarray)), PICTURES)
    return [_written(folder / f"picture-{place}.png", picture) for place, picture in enumerate(pictures)]


def write_scores(folder: Path, name: str, results: Iterable[ScoreResult]) -> Path:
    """Write ``scores-<name>.json``: each score's value, or the reason why there is none, and how it was obtained."""
    path = folder / f"scores-{name}.json"
    found = {result.name: {"value": result.value, "reason": result.reason, "note": result.note} for result in results}
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _written(path: Path, picture: NDArray[np.uint8]) -> Path:
    from PIL import Image  # noqa: PLC0415 - only where there are pictures

    Image.fromarray(picture).save(path)
    return path


def _plain(labels: tuple[str, ...] | NDArray[np.int64]) -> list[object]:
    """An array's or a tuple's items as JSON and CSV take them."""
    return list(labels) if isinstance(labels, tuple) else list(labels.tolist())
