"""What is wrong with the files a manifest names: today those of ``accounting.intensity``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from orchestrator.carbon.series_file import is_file, read_series
from orchestrator.manifest.fields import Finding
from orchestrator.manifest.model import places
from workers.contract import INTENSITY_PATTERN, JobSpec
from workers.errors import InputError

_KEY = "accounting.intensity"


def files_of(specs: Iterable[JobSpec]) -> tuple[str, ...]:
    """The files that jobs name, each once, by their names in the manifest."""
    named = (spec.accounting.intensity for spec in specs)
    return tuple(dict.fromkeys(name for name in named if is_file(name)))


def file_findings(data: Mapping[str, object], folder: Path) -> Iterator[Finding]:
    """Every problem of every file that ``data`` names, reported where it names it; read below ``folder``."""
    for path, name in places(data, _KEY):
        if isinstance(name, str) and re.fullmatch(INTENSITY_PATTERN, name) and is_file(name):
            try:
                read_series(folder, name)
            except InputError as error:
                yield from (Finding(path, f"{_KEY}: {problem}") for problem in str(error).splitlines())
