"""What is wrong with the files a manifest names: today those of ``accounting.intensity``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from orchestrator.carbon.series_file import is_file, read_series
from orchestrator.manifest.fields import Finding
from workers.contract import INTENSITY_PATTERN, JobSpec
from workers.contract import Path as KeyPath
from workers.errors import InputError

_KEY = "accounting.intensity"


def files_of(specs: Iterable[JobSpec]) -> tuple[str, ...]:
    """The files that jobs name, each once, by their names in the manifest."""
    named = (spec.accounting.intensity for spec in specs)
    return tuple(dict.fromkeys(name for name in named if is_file(name)))


def file_findings(data: Mapping[str, object], folder: Path) -> Iterator[Finding]:
    """Every problem of every file that ``data`` names, reported where it names it; read below ``folder``."""
    for path, name in _named(data):
        if isinstance(name, str) and re.fullmatch(INTENSITY_PATTERN, name) and is_file(name):
            try:
                read_series(folder, name)
            except InputError as error:
                yield from (Finding(path, f"{_KEY}: {problem}") for problem in str(error).splitlines())


def _named(data: Mapping[str, object]) -> Iterator[tuple[KeyPath, object]]:
    accounting, sweep = data.get("accounting"), data.get("sweep")
    if isinstance(accounting, Mapping):
        yield ("accounting", "intensity"), accounting.get("intensity")
    values = sweep.get(_KEY) if isinstance(sweep, Mapping) else None
    if isinstance(values, list):
        yield from ((("sweep", _KEY, index), value) for index, value in enumerate(values))
