"""``wattledger run``: submit a manifest and see it through."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Annotated

import typer

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.results import print_comparison, print_jobs, save
from orchestrator.cli.terminal import RunDisplay


def run(
    manifest: options.ManifestArgument,
    address: options.AddressOption = None,
    local: options.LocalOption = False,
    simulate: options.SimulateOption = None,
    prometheus: options.PrometheusOption = None,
    out: options.OutOption = None,
    submission_id: Annotated[
        str | None, typer.Option(help="The same manifest and id give the same job ids.", show_default="a new one")
    ] = None,
    home: options.HomeOption = None,
) -> None:
    """Submit a manifest, follow it, and report what each job cost.

    Exit codes: 0 done, 1 a job failed, 2 bad input, 3 no cluster, 130 cancelled.
    """
    ledger = options.home_of(home)
    with _sigterm_as_interrupt(), RunDisplay() as display:
        result = client.run(
            manifest,
            options.target_of(address=address, local=local, simulate=simulate, prometheus=prometheus),
            home=ledger,
            observer=display,
            submission_id=submission_id,
        )
    print_jobs(f"Jobs of {result.run_id}", result.accounts)
    print_comparison("Comparison", result.accounts)
    save(out or ledger.root / "reports" / result.run_id, result.run_id, result.accounts)
    raise typer.Exit(result.exit_code)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """``ray job stop`` and service managers say SIGTERM where a person says Ctrl-C; both cancel in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
