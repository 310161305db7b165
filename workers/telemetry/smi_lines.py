"""The lines of an ``nvidia-smi`` CSV file, each with the header above it. Pure: bytes in, cells out."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.errors import InputError
from workers.telemetry.smi_columns import Layout, is_missing, named, read_header

_HEADER_WITHIN = 20
"""Lines at the top of a file among which the header is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of figures: its number in the file, its header, and as many cells as the header has columns."""

    number: int
    layout: Layout
    cells: tuple[str, ...]

    def cell(self, what: str) -> str | None:
        """The cell of a column; ``None`` where there is no such column or it says that it has no figure."""
        place = self.layout.places.get(what)
        return None if place is None or is_missing(self.cells[place]) else self.cells[place]


def read_lines(data: bytes, source: str) -> tuple[list[Line], list[tuple[int, str]]]:
    """The lines of figures of a file, and ``(number, why)`` of those that cannot be used.

    Raises:
        InputError: no header with a time and a power; the message names the columns found.
    """
    texts = _text(data).splitlines(keepends=True)
    layouts = [(number, read_header(text)) for number, text in enumerate(texts[:_HEADER_WITHIN], 1) if text.strip()]
    start, layout = next(((number, made) for number, made in layouts if made.is_usable), (0, None))
    if layout is None:
        raise InputError(_no_header(source, [made for _, made in layouts]))
    lines: list[Line] = []
    skipped: list[tuple[int, str]] = []
    for number, text in enumerate(texts[start:], start + 1):
        if not text.strip():
            continue
        if "power" in text.lower() and (again := read_header(text)).is_usable:
            layout = again
            continue
        cells = _cells(text, layout)
        if cells is None:
            skipped.append((number, f"it does not have the {len(layout.columns)} cells of the header"))
        elif not text.endswith(("\n", "\r")) and _may_be_torn(cells, layout, lines):
            skipped.append((number, "it may be torn: the file ends in the middle of it"))
        else:
            lines.append(Line(number=number, layout=layout, cells=cells))
    return lines, skipped


def _text(data: bytes) -> str:
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")


def _no_header(source: str, layouts: Sequence[Layout]) -> str:
    """Why no line at the top is a header, by the line that is nearest to one."""
    if not layouts:
        return f"{source} is empty. Record with nvidia-smi --query-gpu=timestamp,uuid,power.draw --format=csv -l 1."
    best = max(layouts, key=lambda layout: len(layout.places))
    lacking = " or ".join(what for what in ("time", "power") if what not in best.places)
    return (
        f"{source} has no {lacking} column; its columns are {named(best.columns)}. "
        "Record with nvidia-smi --query-gpu=timestamp,uuid,power.draw --format=csv -l 1."
    )


def _cells(text: str, layout: Layout) -> tuple[str, ...] | None:
    """The cells of a line; ``None`` when they are not as many as the header's columns."""
    bare = text.strip("\r\n\0")
    parted = bare.split(layout.separator)
    if len(parted) != len(layout.columns) or '"' in bare:
        try:
            parted = next(csv.reader([bare], delimiter=layout.separator[0], skipinitialspace=True), [])
        except csv.Error:
            return None
    return tuple(cell.strip() for cell in parted) if len(parted) == len(layout.columns) else None


def _may_be_torn(cells: Sequence[str], layout: Layout, before: Sequence[Line]) -> bool:
    """Whether a last line without its end may lack part of a figure we read.

    Its last cell is whole when nobody reads it, or when it ends as the one above: in a unit, or after as many decimals.
    """
    if len(cells) - 1 not in layout.places.values():
        return False
    ending = _ending(cells[-1])
    return not ending or not before or ending != _ending(before[-1].cells[-1])


def _ending(cell: str) -> str:
    """How a figure ends: its unit, else its decimals as zeros; empty for a whole number, which may go on."""
    found = re.search(r"[^\d.,\s]+$|(?<=[.,])\d+$", cell)
    return re.sub(r"\d", "0", found[0]) if found else ""
