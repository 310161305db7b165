"""A user's own intensity: a CSV or Parquet file with a column ``time``, a column ``g_per_kwh`` and maybe ``region``.

A time is ISO 8601 with a zone, or seconds since the epoch. Several rows of one hour are averaged. The file lies beside
the manifest; a run keeps its own copy in the ledger, so that a later report reads what the run was given.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from orchestrator.carbon.hourly import HourlySeries, hourly_means
from workers.errors import InputError
from workers.home import Home
from workers.parquet import read_columns
from workers.units import NS_PER_S, NS_PER_US

COLUMNS = ("time", "g_per_kwh", "region")
NAMES = ("yearly", "electricitymaps", "watttime", "uk")
"""What ``accounting.intensity`` says where it does not name a file."""
MAX_BYTES = 64 << 20
"""Ten years of five-minute values are 40 MB."""
MAX_PROBLEMS = 10
"""Problems told of one file; a file with more is another kind of file."""

Row = tuple[int, Mapping[str, object]]
"""Line (or row) number and its cells."""


@dataclass(frozen=True, kw_only=True)
class SeriesFile:
    """What a file says.

    Attributes:
        name: as the manifest gives it.
        digest: SHA-256 of its bytes, hexadecimal.
        points: region as written (``""`` where the file has none) to (ns since the epoch, gCO2e per kWh).
    """

    name: str
    digest: str
    points: Mapping[str, Sequence[tuple[int, float]]]

    @property
    def source(self) -> str:
        """The file as a source: its name and the beginning of its digest."""
        return f"{self.name} (sha256 {self.digest[:16]})"

    def series(self, regions: Iterable[str]) -> HourlySeries:
        """The hours of the first of ``regions`` (any case) that the file has; all of a file without regions."""
        by_name = {name.upper(): points for name, points in self.points.items()}
        for name in ("", *regions):
            if name.upper() in by_name:
                return HourlySeries(source=self.source, g_per_kwh=hourly_means(by_name[name.upper()]))
        trouble = f"{self.source} has no rows of region {' or '.join(regions) or 'null'}"
        return HourlySeries(source=self.source, g_per_kwh={}, trouble=trouble)


def is_file(intensity: str) -> bool:
    """Whether ``accounting.intensity`` names a file."""
    return intensity not in NAMES


def read_series(folder: Path, name: str) -> SeriesFile:
    """Read and check the file ``name`` below ``folder``.

    Raises:
        InputError: it is not there, lies outside the folder, or cannot be used; with line numbers, one problem a line.
    """
    raw = _bytes(folder, name)
    problems: list[str] = []
    points: dict[str, list[tuple[int, float]]] = {}
    seen: dict[tuple[str, int], int] = {}
    unit = "row" if _is_parquet(name) else "line"
    for number, cells in _rows(name, raw):
        try:
            region, time_ns, figure = _point(cells)
            if (region, time_ns) in seen:
                raise ValueError(f"the time of {unit} {seen[region, time_ns]} again; remove one")
        except (ValueError, csv.Error) as error:
            problems.append(f"{name}, {unit} {number}: {error}")
            if len(problems) == MAX_PROBLEMS:
                break
            continue
        seen[region, time_ns] = number
        points.setdefault(region, []).append((time_ns, figure))
    if not points and not problems:
        problems.append(f"{name} has no rows; give it at least one hour")
    if problems:
        raise InputError("\n".join(problems))
    return SeriesFile(name=name, digest=hashlib.sha256(raw).hexdigest(), points=points)


def keep_series(home: Home, run_id: str, folder: Path, names: Iterable[str]) -> None:
    """Copy the files ``names`` below ``folder`` into the ledger for a run; a copy that is there stays as it is.

    Raises:
        InputError: a file cannot be read.
    """
    for name in dict.fromkeys(names):
        raw, kept = _bytes(folder, name), home.series(run_id) / name
        if kept.exists():
            continue
        kept.parent.mkdir(parents=True, exist_ok=True)
        hidden = kept.with_name(f".{kept.name}.tmp")
        hidden.write_bytes(raw)
        hidden.replace(kept)


def _bytes(folder: Path, name: str) -> bytes:
    parts = PurePosixPath(name)
    path = folder / parts
    if parts.is_absolute() or ".." in parts.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name} lies outside the manifest's folder; name a file in it or below")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{name} cannot be read beside the manifest: {error.strerror}; check its name") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{name} is longer than {MAX_BYTES >> 20} MiB; keep the hours that are needed")
    return raw


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet")


def _rows(name: str, raw: bytes) -> Iterator[Row]:
    """Rows with their numbers; a file that is no table is a problem of its own."""
    try:
        found, rows = _parquet(raw) if _is_parquet(name) else _csv(raw)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name}: {error}") from error
    if missing := [column for column in COLUMNS[:2] if column not in found]:
        raise InputError(f"{name} has no column {' and no column '.join(missing)}; it has {', '.join(found) or 'none'}")
    return rows


def _csv(raw: bytes) -> tuple[Sequence[str], Iterator[Row]]:
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save it as UTF-8") from error
    found = reader.fieldnames or ()
    return found, ((reader.line_num, cells) for cells in reader)


def _parquet(raw: bytes) -> tuple[Sequence[str], Iterator[Row]]:
    columns = read_columns(raw, COLUMNS)
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return tuple(columns), enumerate(rows, start=1)


def _point(cells: Mapping[str, object]) -> tuple[str, int, float]:
    if None in cells:
        raise ValueError("more cells than the first line has columns; put text that holds a comma in quotes")
    return str(cells.get("region") or "").strip(), _time_ns(cells["time"]), _figure(cells["g_per_kwh"])


def _figure(cell: object) -> float:
    try:
        figure = float(str(cell))
    except ValueError:
        figure = math.nan
    if not math.isfinite(figure) or figure < 0:
        raise ValueError(f"g_per_kwh {str(cell)!r} is not a number of 0 or more")
    return figure


def _time_ns(cell: object) -> int:
    """Nanoseconds since the epoch; a Parquet time with a zone already is that."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        # Seconds until the year 5138; from there on nanoseconds, which of 1970 are a minute and a half.
        return cell * NS_PER_S if abs(cell) < 100 * NS_PER_S else cell
    text = str(cell).strip()
    try:
        seconds = float(text)
    except ValueError:
        return _iso_ns(text)
    if not math.isfinite(seconds):
        raise ValueError(f"time {text!r} is no time")
    return round(seconds * NS_PER_S)


def _iso_ns(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"time {text!r} is neither ISO 8601 nor seconds since the epoch") from None
    if time.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone; write {text}Z if it is UTC")
    whole = time - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (whole.days * 86_400 + whole.seconds) * NS_PER_S + whole.microseconds * NS_PER_US
