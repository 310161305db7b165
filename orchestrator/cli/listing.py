"""A listing of records: on the terminal, or as a file of the format that was asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.cli.terminal import Column, console, print_table, print_text
from orchestrator.report.formats import TEXTS, grid, with_method
from orchestrator.report.records import Record
from workers.errors import InputError, UnknownNameError
from workers.parquet import write_rows

FORMATS = ("table", *TEXTS, "parquet")


def show(title: str, records: Sequence[Record], columns: Sequence[str], *, form: str, out: Path | None) -> None:
    """Print the records, or write them to the file ``out``.

    Raises:
        UnknownNameError: a column no record has.
        InputError: Parquet without a file, or without records; or the file cannot be written.
    """
    known = sorted({name for record in records for name in record})
    for name in columns:
        if records and name not in known:
            raise UnknownNameError("column", name, known)
    shown = with_method(columns, records)
    if form == "parquet":
        _write_parquet(records, shown, out)
    elif form != "table":
        _write_text(TEXTS[form](title, records, shown, ()), out)
    elif out is None:
        _print(title, records, shown)
    else:
        raise InputError(f"a table is for the terminal. Name one of {', '.join(FORMATS[1:])} with --format for a file.")


def _print(title: str, records: Sequence[Record], columns: Sequence[str]) -> None:
    found = grid(title, records, columns)
    heads = [
        Column(heading=f"{name}\n{unit}" if unit else name, numeric=numeric, spare=place)
        for place, (name, unit, numeric) in enumerate(zip(found.headings, found.units, found.numeric, strict=True))
    ]
    notes = [*found.notes, *([] if records else ["no job meets all of these conditions"])]
    print_table(title, heads, found.rows, notes)


def _write_text(text: str, out: Path | None) -> None:
    if out is None:
        print_text(text.rstrip("\r\n"))
        return
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8", newline="")
    _say(out)


def _write_parquet(records: Sequence[Record], columns: Sequence[str], out: Path | None) -> None:
    if out is None:
        raise InputError("Parquet is no text. Name a file: --out report.parquet.")
    if not records:
        raise InputError("no job meets all of these conditions, so there is nothing to write.")
    with _writing(out):
        write_rows(out, [{name: record[name] for name in columns} for record in records])
    _say(out)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turns a disk that refuses into an error of ours."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}. Name another file with --out.") from error


def _say(out: Path) -> None:
    console(stderr=True).print(f"wrote {out}", soft_wrap=True, markup=False, emoji=False)
