"""Records as CSV, JSON, Markdown and LaTeX. Pure.

Programs get the fields as they are, in base units. People get headings with units, three significant digits, and a dash
for what is not known. A figure of energy never stands without its method: the column is added where it was left out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.report.figures import UNKNOWN, energy_unit, format_number, format_wh, mass_unit
from orchestrator.report.headings import HEADINGS, METHOD, Heading
from orchestrator.report.records import Record
from workers.contract import Method

SIMULATED_NOTE = "SIMULATED: some of the energy here, and all that is computed from it, comes from simulated devices."


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as people read it: headings with units, and cells as text."""

    title: str
    headings: tuple[str, ...]
    units: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def with_method(columns: Sequence[str], records: Sequence[Record]) -> tuple[str, ...]:
    """The columns, with the energy's method where a figure depends on it."""
    needed = any(HEADINGS[name].of_energy for name in columns) and METHOD not in columns
    return (*columns, METHOD) if needed and all(METHOD in record for record in records) else tuple(columns)


def grid(title: str, records: Sequence[Record], columns: Sequence[str], notes: Sequence[str] = ()) -> Grid:
    """The records for people."""
    shown = [_column(HEADINGS[name], [record[name] for record in records]) for name in columns]
    is_simulated = any(record.get(METHOD) == Method.SIMULATED for record in records)
    return Grid(
        title=title,
        headings=tuple(HEADINGS[name].title for name in columns),
        units=tuple(unit for unit, _ in shown),
        numeric=tuple(HEADINGS[name].kind != "text" for name in columns),
        rows=tuple(zip(*(cells for _, cells in shown), strict=True)) if records else (),
        notes=(*([SIMULATED_NOTE] if is_simulated else []), *notes),
    )


def _column(heading: Heading, values: Sequence[object]) -> tuple[str, list[str]]:
    """A column's unit and cells."""
    numbers = [float(value) if isinstance(value, int | float) else None for value in values]
    if heading.kind == "text":
        return "", [_words(value) for value in values]
    unit, factor = heading.unit, 1.0
    if heading.kind in ("energy", "mass"):
        base = [None if number is None else number * heading.factor for number in numbers]
        suits = (energy_unit if heading.kind == "energy" else mass_unit)(base)
        unit, factor = suits.symbol, heading.factor * suits.factor
    if all(value is None or isinstance(value, int) for value in values):
        return unit, [UNKNOWN if value is None else f"{value:,}" for value in values]
    return unit, [format_number(None if number is None else number * factor) for number in numbers]


def _words(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_wh(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def as_csv(records: Sequence[Record], columns: Sequence[str]) -> str:
    """Comma-separated, as RFC 4180 has it; unknown is empty, lists are joined by semicolons, mappings are JSON."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(record[name]) for name in columns] for record in records)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return ";".join(map(str, value))
    text = value if isinstance(value, str) else None
    # A cell that begins like a formula would be run by the spreadsheet that opens it.
    return f"'{text}" if text and text[0] in "=+-@\t\r" else value


def as_json(records: Sequence[Record], columns: Sequence[str]) -> str:
    """A list of objects."""
    chosen = [{name: record[name] for name in columns} for record in records]
    return json.dumps(chosen, indent=2, ensure_ascii=False, allow_nan=False)


def as_markdown(found: Grid) -> str:
    """A table as GitHub and Pandoc read it."""
    heads = [
        _markdown(f"{title} ({unit})" if unit else title)
        for title, unit in zip(found.headings, found.units, strict=True)
    ]
    rule = ["---:" if numeric else ":---" for numeric in found.numeric]
    lines = [heads, rule, *([_markdown(cell) for cell in row] for row in found.rows)]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(
        [f"**{_markdown(found.title)}**", "", *table, "", *(f"*{_markdown(note)}*\n" for note in found.notes)]
    )


def as_latex(found: Grid) -> str:
    r"""A ``table`` for ``booktabs``; say ``\usepackage{booktabs}``."""
    heads = [
        rf"{_latex(title)} ({_latex(unit)})" if unit else _latex(title)
        for title, unit in zip(found.headings, found.units, strict=True)
    ]
    caption = " ".join([found.title.rstrip(".") + ".", *found.notes])
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in found.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex(caption)}}}",
            rf"  \begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in found.numeric)}}}",
            r"    \toprule",
            f"    {' & '.join(heads)} \\\\",
            r"    \midrule",
            *(f"    {row}" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": "$-$",
    "–": "--",
    "µ": r"\textmu{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "₂": r"\textsubscript{2}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}


def _latex(text: str) -> str:
    words = "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
    return words.replace("CO2e", r"CO\textsubscript{2}e")


Render = Callable[[str, Sequence[Record], Sequence[str], Sequence[str]], str]
TEXTS: Mapping[str, Render] = {
    "csv": lambda _title, records, columns, _notes: as_csv(records, columns),
    "json": lambda _title, records, columns, _notes: as_json(records, columns),
    "markdown": lambda title, records, columns, notes: as_markdown(grid(title, records, columns, notes)),
    "latex": lambda title, records, columns, notes: as_latex(grid(title, records, columns, notes)),
}
"""The formats that are text, by name."""
