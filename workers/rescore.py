"""Take scores of an attempt's predictions again, others too, without its model: ``python -m workers.rescore``.

What the ledger holds does not change: a report's score is the one that the attempt logged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.errors import InputError, WattledgerError
from workers.predictions import Predictions, read_predictions, write_scores
from workers.quality.embedding import MODELS
from workers.quality.registry import prepare
from workers.quality.result import ScoreResult
from workers.quality.scoring import Encoders, take_scores


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed.

    Attributes:
        files: of predictions.
        scores: names; empty: those that the attempt took.
        encoders: score to the encoder it is to use.
        writes: whether the files of scores are brought up to date.
    """

    files: tuple[Path, ...]
    scores: tuple[str, ...]
    encoders: Mapping[str, str]
    writes: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each score, or why there is none, and return the exit code."""
    try:
        options = parse(arguments)
        encoders = Encoders(options.encoders, published=True)
        for path in options.files:
            results = rescore(path, options.scores, encoders)
            for result in results:
                sys.stdout.write(f"{_name(path)}  {_line(result)}\n")
            if options.writes:
                write_scores(path.parent, _name(path), results, keep=True)
    except WattledgerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def rescore(path: Path, names: Sequence[str], encoders: Encoders) -> list[ScoreResult]:
    """The scores ``names`` of the predictions in ``path``; without names those of the file of scores beside it.

    Raises:
        UnknownNameError: no such score.
        InputError: a file cannot be read, or what it holds cannot be scored so.
        JobError: a package is missing, or a score cannot be computed.
    """
    names = names or _taken_before(path.with_name(f"scores-{_name(path)}.json"))
    prepare(names)
    given = read_predictions(path)
    likely = given.besides.get("log_probabilities")
    return take_scores(
        names,
        answers=given.answers,
        labels=given.labels,
        encoders=encoders,
        context=_context(given, path.parent),
        # Only those of tokens that count were kept.
        likelihoods=None if likely is None else (likely, [np.zeros(len(row), dtype=np.int64) for row in likely]),
    )


def parse(arguments: Sequence[str] | None) -> Options:
    """The options.

    Raises:
        InputError: there are no predictions, or an encoder is of no score that has one.
    """
    parser = argparse.ArgumentParser(
        prog="python -m workers.rescore", description="Take scores of saved predictions again."
    )
    parser.add_argument("predictions", type=Path, help="an attempt's folder, or one file of predictions in it")
    parser.add_argument(
        "--score", action="append", default=[], metavar="NAME", help="may be repeated; default: those taken before"
    )
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="SCORE=NAME",
        help=f"model on the hub, or folder, of {', '.join(MODELS)}; default: the published one, from the hub",
    )
    parser.add_argument("--write", action="store_true", help="bring scores-*.json beside the predictions up to date")
    found = parser.parse_args(arguments)
    encoders = dict(_encoder(text) for text in found.encoder)
    return Options(files=_files(found.predictions), scores=tuple(found.score), encoders=encoders, writes=found.write)


def _files(place: Path) -> tuple[Path, ...]:
    files = tuple(sorted(place.glob("predictions-*.*"))) if place.is_dir() else (place,)
    if not files:
        raise InputError(f"{place} has no predictions; name an attempt's folder that has files predictions-*.jsonl.")
    return files


def _encoder(text: str) -> tuple[str, str]:
    score, _, name = text.partition("=")
    if score not in MODELS or not name:
        raise InputError(f"--encoder {text} is not SCORE=NAME with a score of {', '.join(MODELS)}.")
    return score, name


def _name(path: Path) -> str:
    """``evaluate`` of ``predictions-evaluate.jsonl``."""
    return path.stem.removeprefix("predictions-")


def _taken_before(path: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} does not say which scores were taken ({error}); name some with --score.") from error


def _context(given: Predictions, folder: Path) -> dict[str, object]:
    """What scores need besides, of the columns beside the predictions."""
    return {"databases": [folder / path for path in given.besides["databases"]]} if "databases" in given.besides else {}


def _line(result: ScoreResult) -> str:
    said = result.reason if result.value is None else result.note
    return f"{result.name}  {'-' if result.value is None else f'{result.value:.4f}'}{f'  ({said})' if said else ''}"


if __name__ == "__main__":
    sys.exit(main())
