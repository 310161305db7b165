"""``wattledger explain``: why a job waits, why it is where it is, and what happened to it."""

from __future__ import annotations

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.status import how_far, where
from orchestrator.cli.terminal import Column, print_table, print_text
from orchestrator.queue_view import Explanation
from orchestrator.report.figures import UNKNOWN, format_duration, format_time


def explain(job: options.JobArgument, as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """Tell a job's story: why it waits or is where it is, what happened to it, and what would help.

    It reads the ledger alone, also when no controller runs.
    """
    told = client.explain(options.home_of(home), job)
    if as_json:
        options.print_json(told.as_dict())
        return
    print_table("", [Column(heading="job"), Column(heading=told.job.job_id, folds=True)], _facts(told))
    story = [[format_time(time_ns), what] for time_ns, what in told.story]
    print_table("", [Column(heading="when"), Column(heading="what happened", folds=True)], story)
    if told.last_lines:
        print_text("\n".join(["", "The last lines of its log:", *(f"  {x}" for x in told.last_lines)]))
    if told.remedy:
        print_text(f"\nWhat to do: {told.remedy}.")


def _facts(told: Explanation) -> list[list[str]]:
    job, record = told.job, told.job.record
    spec = record.spec
    facts = [
        ("state", f"{record.state}: {told.means}"),
        ("why", None if told.starts_after else job.why),
        ("waits for", "\n".join(told.starts_after) or None),
        ("in line", f"{job.place} of {job.in_line}, priority {spec.schedule.priority}" if job.place else None),
        *[("needs", f"{need.job_id}: {need.state or 'not in this ledger'}") for need in told.needs],
        ("asks for", told.asks),
        *[("bears on it", sentence) for sentence in told.bearing],
        ("controller", told.controller),
        ("where", where(job) if record.attempts else None),
        ("progress", how_far(job) if record.state.holds_place else None),
        ("ends in", format_duration(job.eta_s) if job.eta_s is not None else None),
        ("submitted", f"{format_time(record.submitted_ns)} by {record.user or UNKNOWN}, with {record.run_id}"),
        ("what", f"{spec.kind} {spec.model} on {spec.task}, seed {spec.seed}"),
        *[("log", str(log.path)) for log in told.logs if log.rank == 0],
    ]
    return [[name, text] for name, text in facts if text]
