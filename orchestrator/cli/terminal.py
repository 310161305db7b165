"""What a person sees on a terminal: tables, and progress bars that turn into plain lines in a log. The door of rich."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

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
    return Console(stderr=stderr, width=None if stream.isatty() else LOG_WIDTH, highlight=False)


def print_table(
    title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """A table with its notes below.

    Args:
        title: above the table.
        columns: heading, and ``left`` or ``right``.
        rows: cells as text, shown as they are.
        notes: sentences printed after it.
    """
    table = Table(title=title, title_justify="left", header_style="bold", title_style="bold")
    for heading, side in columns:
        table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    out = console()
    out.print(table)
    for note in notes:
        out.print(f"  {_plain(note)}")


def _plain(text: str) -> str:
    """Text with rich's markup switched off: a job may be named ``[red]``."""
    return text.replace("[", "\\[")


class RunDisplay:
    """Follows a run: on a terminal a bar for each running job and one for all, elsewhere a line for each change."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
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
        self._console.print(f"• {_plain(text)}")

    def planned(self, plan: Plan) -> None:
        """How much there is to do."""
        kinds = sorted({f"{job.accelerator}{' (simulated)' if job.simulated else ''}" for job in plan.jobs})
        self.say(f"{len(plan.jobs)} jobs on {', '.join(kinds)}")

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
            self._tasks[key] = self._bars.add_task(_plain(label(job)), total=1.0, detail="starting")
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
