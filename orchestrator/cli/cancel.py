"""``wattledger cancel``: take jobs out of the queue, or stop them where they run."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import RunDisplay, print_text


def cancel(
    names: Annotated[
        list[str], typer.Argument(help="Job ids or their beginnings, run ids, manifest names.", show_default=False)
    ],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they have left their places.")] = False,
    as_json: options.JsonOption = False,
    home: options.HomeOption = None,
) -> None:
    """Cancel jobs, and with them the jobs that need them; what has ended stays as it is.

    Exit codes: 0 done, 2 no such job, 3 no controller is there to stop those that run.
    """
    display = RunDisplay()
    with contextlib.nullcontext(options.Notes()) if as_json else display as observer:
        jobs = client.cancel(names, home=options.home_of(home), observer=observer, wait=not no_wait)
    if as_json:
        options.print_json([{"job_id": job.job_id, "state": job.state.value, "reason": job.reason} for job in jobs])
        return
    print_text("\n".join(f"{job.job_id}: {job.state}{f', {job.reason}' if job.reason else ''}" for job in jobs))
