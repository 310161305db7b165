"""``nvidia-smi --query-gpu=... --format=csv`` files as samples of power. Pure: bytes in, samples out.

Any order and spelling of columns (see ``smi_columns``), several boards interleaved, headers repeated where a logger was
started again, lines out of order or twice, a torn last line. What cannot be used is left out and told, line by line.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from workers.errors import InputError
from workers.telemetry.smi_columns import TIMES, Layout, comma_is_decimal, milliwatts, named, share, time_ns
from workers.telemetry.smi_lines import Line, read_lines

ABSURD_MW = 2**31
"""NVML's 32-bit sentinels lie above this; no board draws 2.1 MW."""
SAME_LOOK_NS = 50_000_000
"""Lines of several boards written at one look are closer than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmiSample:
    """What one line says of one board: power in mW, the enforced limit in mW and the busy share, if told."""

    time_ns: int
    power_mw: int
    limit_mw: int | None
    utilization: float | None


@dataclass(frozen=True, kw_only=True)
class SmiBoard:
    """One board of a log.

    Attributes:
        key: what told it from others: its UUID, bus address or index, else its name, else nothing.
        uuid, index, name: as logged; ``None`` without such a column.
        samples: by time, no two at the same; empty when the board never told its power.
    """

    key: str
    uuid: str | None
    index: int | None
    name: str | None
    samples: tuple[SmiSample, ...]


@dataclass(frozen=True, kw_only=True)
class SmiLog:
    """A whole file: its boards by index, else in order of appearance, and ``(line, why)`` of lines left out."""

    boards: tuple[SmiBoard, ...]
    skipped: tuple[tuple[int, str], ...]


@dataclass
class _Found:
    """A board while its lines are gathered; of two samples at one time the later line holds."""

    uuid: str | None
    index: int | None
    name: str | None
    samples: dict[int, SmiSample] = field(default_factory=dict)
    contradicted: set[int] = field(default_factory=set)

    def add(self, sample: SmiSample) -> None:
        before = self.samples.get(sample.time_ns)
        if before is not None and before.power_mw != sample.power_mw:
            self.contradicted.add(sample.time_ns)
        self.samples[sample.time_ns] = sample


def parse_smi_log(data: bytes, *, source: str) -> SmiLog:
    """Read a file.

    Args:
        data: the file: UTF-8, or UTF-16 with its mark, as PowerShell writes.
        source: its name, for messages.

    Raises:
        InputError: no time or power column (the columns found are named), no line that can be used, a number that
            could mean two things, or lines of several boards that nothing tells apart.
    """
    lines, skipped = read_lines(data, source)
    commas = comma_is_decimal(cell for line in lines for what in ("power", "limit") if (cell := line.cell(what)))
    if commas is None:
        raise InputError(
            f"{source}: '1,234' could be a thousand or one and a bit, and no other line settles it. "
            "Write the file with decimal points."
        )
    found: dict[str, _Found] = {}
    for line in lines:
        problem = _take(line, found, decimal_comma=commas)
        if problem:
            skipped.append((line.number, problem))
    if not any(board.samples for board in found.values()):
        told = "; ".join(f"line {number}: {why}" for number, why in sorted(skipped)[:3]) or "it ends after its header"
        raise InputError(f"{source} has no line with both a time and a power ({told}). Times are read like {TIMES}.")
    if not lines[0].layout.identity:
        _refuse_mixed(found, lines[0].layout, source)
    boards = [
        SmiBoard(
            key=key,
            uuid=board.uuid,
            index=board.index,
            name=board.name,
            samples=tuple(sorted(board.samples.values(), key=lambda sample: sample.time_ns)),
        )
        for key, board in found.items()
    ]
    by_index = all(board.index is not None for board in boards)
    ordered = sorted(boards, key=lambda board: board.index or 0) if by_index else boards
    return SmiLog(boards=tuple(ordered), skipped=tuple(sorted(skipped)))


def _take(line: Line, found: dict[str, _Found], *, decimal_comma: bool) -> str | None:
    """Put a line's sample with its board; gives why not, or ``None``."""
    identity = line.layout.identity
    key = line.cell(identity or "name")
    if identity and key is None:
        return "it does not say which board it is of"
    when = line.cell("time")
    at_ns = None if when is None else time_ns(when)
    if at_ns is None:
        return f"{when!r} is not a time"
    board = found.setdefault(key or "", _new_board(line))
    power_mw = _milliwatts(line, "power", decimal_comma=decimal_comma)
    if power_mw is None:
        return f"{line.cells[line.layout.places['power']]!r} is not a power"
    busy = line.cell("utilization")
    board.add(
        SmiSample(
            time_ns=at_ns,
            power_mw=power_mw,
            limit_mw=_milliwatts(line, "limit", decimal_comma=decimal_comma),
            utilization=None if busy is None else share(busy, decimal_comma=decimal_comma),
        )
    )
    return None


def _new_board(line: Line) -> _Found:
    index = line.cell("index")
    number = int(index) if index is not None and index.isdecimal() else None
    return _Found(uuid=line.cell("uuid"), index=number, name=line.cell("name"))


def _milliwatts(line: Line, what: str, *, decimal_comma: bool) -> int | None:
    cell = line.cell(what)
    unit = line.layout.units.get(what, "")
    told = None if cell is None else milliwatts(cell, unit=unit, decimal_comma=decimal_comma)
    return told if told is not None and 0 <= told < ABSURD_MW else None


def _refuse_mixed(found: dict[str, _Found], layout: Layout, source: str) -> None:
    """Refuse lines that seem to be of several boards, when no column tells boards apart.

    Raises:
        InputError: half the times have two powers, or the lines come in rounds of equal size.
    """
    for board in found.values():
        times = sorted(board.samples)
        if 2 * len(board.contradicted) >= len(times) > 1 or _come_in_rounds(times):
            raise InputError(
                f"{source} seems to mix several boards that no column tells apart; its columns are "
                f"{named(layout.columns)}. Record the uuid too: nvidia-smi --query-gpu=timestamp,uuid,power.draw ..."
            )


def _come_in_rounds(times: Iterable[int]) -> bool:
    """Whether most of the times come in groups of one size, close together, with more time between the groups."""
    spacings = [after - before for before, after in itertools.pairwise(times)]
    if not spacings:
        return False
    near_ns = min(SAME_LOOK_NS, sum(spacings) // len(spacings) // 4)
    groups = [len(list(run)) + 1 for near, run in itertools.groupby(spacings, lambda gap: gap < near_ns) if near]
    rounds = sum(gap >= near_ns for gap in spacings) + 1
    return rounds >= 3 and max(Counter(groups).values(), default=0) > rounds / 2
