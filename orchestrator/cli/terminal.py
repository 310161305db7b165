"""What a person sees on a terminal: tables, and progress bars that turn into plain lines in a log. The door of rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Literal, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.plan import Plan
from workers.home import Home
from workers.progress import Progress as AttemptProgress
from workers.progress import read_progress

LOG_WIDTH = 200
"""Columns where the output is no terminal: wide enough that no table row is folded."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or as a log's lines."""
    stream = sys.stderr if stderr else sys.stdout
    return _Terminal(stderr=stderr, width=None if stream.isatty() else LOG_WIDTH, highlight=False)


class _Terminal(Console):
    """A console whose reader may leave (``| head``): the rest is for nobody, and the command goes on to its end."""

    def on_broken_pipe(self) -> None:
        _give_up(self.file)


def print_text(text: str) -> None:
    """A text on standard output as it is, JSON above all; a reader that has left is no error."""
    print_piece(f"{text}\n")


def print_piece(text: str) -> None:
    """A part of a text on standard output, seen at once, without a line's end of its own."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        _give_up(sys.stdout)


def _give_up(stream: IO[str]) -> None:
    """Whatever is still written goes nowhere: the interpreter's own last flush would complain otherwise."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a terminal table.

    Attributes:
        heading: may have two lines.
        numeric: set to the right.
        spare: columns of the highest number are left out first where the terminal is too narrow; 0 is never.
        folds: prose, which may take several lines.
        least: prose is given so many columns before others are left out for it.
    """

    heading: str
    numeric: bool = False
    spare: int = 0
    folds: bool = False
    least: int = 20


def print_table(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """A table with its notes below; a figure is never folded, so what does not fit is left out, and said.

    Args:
        title: above the table.
        columns: as many as each row has cells.
        rows: cells as text, shown as they are.
        notes: sentences printed after it.
    """
    out = console()
    out.print(_drawn(title, columns, rows, notes, width=out.width))


class LiveTable:
    """A table that is drawn anew in its place, as often as it is shown; for a terminal alone (``is_live``)."""

    def __init__(self) -> None:
        self._console = console()
        self._screen = Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis")

    @property
    def is_live(self) -> bool:
        """Whether standard output is a terminal, which can draw anew."""
        return self._console.is_terminal

    def __enter__(self) -> Self:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.stop()

    def show(
        self, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> None:
        """Draw it; rows that a screen has no room for are counted, and the notes stay in sight."""
        width, height = self._console.size
        room = min(len(rows), height)
        while True:
            more = [f"and {len(rows) - room} more (without --watch all are shown)"] if len(rows) > room else []
            drawn = _drawn(title, columns, rows[:room], [*more, *notes], width=width)
            lines = len(self._console.render_lines(drawn)) + 1
            if lines <= height or room == 0:
                break
            room = min(room - 1, room * height // lines)
        self._screen.update(drawn, refresh=True)


def _drawn(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str], *, width: int
) -> Group:
    # By place: two columns may have the same heading.
    places = _that_fit(columns, rows, width)
    kept = [columns[place] for place in places]
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    # Prose is read from its first line on; figures stand at the foot of a heading of two lines.
    where: Literal["top", "bottom"] = "top" if any(column.folds for column in kept) else "bottom"
    for column in kept:
        side: Literal["left", "right"] = "right" if column.numeric else "left"
        table.add_column(Text(column.heading), justify=side, no_wrap=not column.folds, overflow="fold", vertical=where)
    for row in rows:
        table.add_row(*(Text(row[place]) for place in places))
    left_out = [column.heading.replace("\n", " ") for place, column in enumerate(columns) if place not in places]
    told = [f"no room for: {', '.join(left_out)} (widen the terminal, or use --json)"] if left_out else []
    return Group(table, *(Text(f"  {note}") for note in [*notes, *told]))


def _that_fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Places of the columns that fit into ``width``, the sparest left out first; those that fold may be narrow."""
    kept = list(range(len(columns)))
    widths = [
        max([*map(len, column.heading.split("\n")), *(len(row[place]) for row in rows)])
        for place, column in enumerate(columns)
    ]
    least = [min(w, column.least) if column.folds else w for w, column in zip(widths, columns, strict=True)]
    while sum(least[place] + 2 for place in kept) > width:
        sparest = max(kept, key=lambda place: columns[place].spare)
        if columns[sparest].spare == 0:
            break
        kept.remove(sparest)
    return kept


class RunDisplay:
    """Follows a run: on a terminal a bar for each running job and one for all, elsewhere a line for each change."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._total = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), console=self._console
        )
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._total_task: TaskID | None = None
        self._said: dict[str, str] = {}
        self._screen: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def say(self, text: str) -> None:
        """One line, above the bars."""
        self._console.print(Text(f"• {text}"))

    def planned(self, plan: Plan) -> None:
        """How much there is to do."""
        kinds = sorted({f"{job.accelerator}{' (simulated)' if job.simulated else ''}" for job in plan.jobs})
        self.say(f"{len(plan.jobs)} job{'' if len(plan.jobs) == 1 else 's'} on {', '.join(kinds)}")

    def progressed(self, home: Home, jobs: Sequence[JobRecord]) -> None:
        """Redraw, or say what changed."""
        for job in jobs:
            self._follow(job, _progress(home, job))
        self._follow_total(jobs)
        if jobs and all(job.state.is_final for job in jobs):
            self._stop()

    def _follow_total(self, jobs: Sequence[JobRecord]) -> None:
        if not self._live:
            return
        if self._screen is None:
            self._screen = Live(_stacked(self._bars, self._total), console=self._console, refresh_per_second=4)
            self._screen.start()
        if self._total_task is None:
            self._total_task = self._total.add_task("all jobs", total=len(jobs))
        self._total.update(self._total_task, completed=sum(job.state.is_final for job in jobs))

    def _follow(self, job: JobRecord, progress: AttemptProgress | None) -> None:
        said = f"{job.state}{f': {job.reason}' if job.reason else ''}"
        if job.state is JobState.RUNNING:
            attempt = job.attempts[-1]
            said = f"running on {attempt.accelerator}, {progress.phase if progress else 'starting'}"
        if self._said.get(job.job_id, "queued") != said:
            self._said[job.job_id] = said
            if not self._live or job.state.is_final:
                self.say(f"{label(job)}: {said}")
        if self._live:
            self._draw(job, progress)

    def _draw(self, job: JobRecord, progress: AttemptProgress | None) -> None:
        if not job.attempts:
            return
        key = (job.job_id, job.attempts[-1].number)
        if job.state is not JobState.RUNNING:
            if key in self._tasks:
                self._bars.remove_task(self._tasks.pop(key))
            return
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(label(job), total=1.0, detail="starting")
        if progress is not None:
            loss = "" if progress.loss is None else f" loss {progress.loss:.3f}"
            self._bars.update(
                self._tasks[key],
                completed=progress.fraction,
                detail=f"{progress.phase} {progress.done}/{progress.total}{loss}",
            )

    def _stop(self) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None


def _stacked(*parts: Progress) -> Table:
    grid = Table.grid()
    for part in parts:
        grid.add_row(part)
    return grid


def label(job: JobRecord) -> str:
    """A job in a few words: id, model, accelerator, seed."""
    where = f" {job.attempts[-1].accelerator}" if job.attempts else ""
    return f"{job.job_id} {job.spec.model}{where} seed {job.spec.seed}"


def _progress(home: Home, job: JobRecord) -> AttemptProgress | None:
    if job.state is not JobState.RUNNING or not job.attempts:
        return None
    return read_progress(home, job.job_id, job.attempts[-1].number)
