"""Everything the logs hold of a job, brought together: what its figures are computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.accounting.assumed import assumed
from orchestrator.accounting.baseline import Baseline, read_baselines
from orchestrator.accounting.energy import DeviceWindow, EnergySum, by_phase, in_phases, sum_of, windows
from orchestrator.accounting.many import MANY_JOBS, read_many
from orchestrator.accounting.phases import PhaseSpan, phase_spans
from orchestrator.accounting.unknown import Unknown
from orchestrator.chain import chain_of, wasted_in
from orchestrator.lifecycle import AttemptRecord, AttemptState, JobRecord
from workers.contract import EnergyEntry, Phase
from workers.environment import RANKS, UNCONFIRMED, UNMETERED, environment_file
from workers.home import Home
from workers.metric_log import MetricRead, MetricSample, read_metric_log, resumed_from
from workers.telemetry.energy_log import utc_date
from workers.telemetry.energy_read import EnergyRead, read_energy_logs
from workers.units import NS_PER_S

NOT_RUN = "has not run"
NEVER = "9999-12-31"
"""A UTC date after all others."""
NS_PER_DAY = 86_400 * NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one job.

    Attributes:
        entries: energy booked to it, all attempts, and what its manifest assumes of CPU and DRAM where nobody metered
            them; those of the chain have the phases of their metric logs where the agent heard of none.
        damaged: a file of the energy log that may hold entries of this job cannot be read.
        log: metric log of the last attempt.
        spans: phases of the last attempt.
        earlier: number to metric log of the attempts whose checkpoints the last one stands on. With it they are the
            *chain*, and count together.
        why_unmetered: kind of device (``cpu``, ``dram``) to why the node of the last attempt does not meter it.
        unconfirmed: attempt to why its last joules were not known to be booked when it ended (its agent was away).
        node_of: device to the node that metered it, for the devices of the energy log.
        incomplete: an attempt that ended lacks entries, and nothing stands in for them.
        recovered: those of ``entries`` that are not from the energy log, but from Prometheus in its place.
        baseline: who scored its base model; ``None``: the job itself.
    """

    job: JobRecord
    entries: tuple[EnergyEntry, ...]
    damaged: bool
    log: MetricRead
    spans: tuple[PhaseSpan, ...]
    earlier: Mapping[int, MetricRead] = field(default_factory=dict)
    why_unmetered: Mapping[str, str] = field(default_factory=dict)
    unconfirmed: Mapping[int, str] = field(default_factory=dict)
    node_of: Mapping[str, str] = field(default_factory=dict)
    incomplete: bool = False
    recovered: tuple[EnergyEntry, ...] = ()
    baseline: Baseline | None = None

    @property
    def last(self) -> AttemptRecord | None:
        """The last attempt; ``None`` before the first."""
        return self.job.attempts[-1] if self.job.attempts else None

    @property
    def last_name(self) -> str:
        """The last attempt in words."""
        return f"attempt {self.last.number}" if self.last else "no attempt"

    @property
    def chain(self) -> tuple[int, ...]:
        """The attempts that count together: the last, and those it went on from; in order."""
        return (*sorted(self.earlier), *([self.last.number] if self.last else []))

    @property
    def wasted(self) -> frozenset[int]:
        """The attempts that came to nothing."""
        return wasted_in(self.job.attempts, self.chain)

    @property
    def chain_logs(self) -> tuple[tuple[tuple[MetricSample, ...], tuple[PhaseSpan, ...]], ...]:
        """What each attempt of the chain logged, and its phases, in order."""
        before = [self.earlier[number].samples for number in sorted(self.earlier)]
        return (*((samples, phase_spans(samples)) for samples in before), (self.log.samples, self.spans))

    @property
    def chain_samples(self) -> tuple[MetricSample, ...]:
        """All that the chain logged: steps done again, since no checkpoint held them, twice, as their energy."""
        return tuple(sample for samples, _ in self.chain_logs for sample in samples)

    @property
    def chain_entries(self) -> tuple[EnergyEntry, ...]:
        """Energy booked to the chain, entry by entry."""
        chain = frozenset(self.chain)
        return tuple(entry for entry in self.entries if entry.attempt in chain)

    def lasted_s(self, phase: Phase) -> float:
        """Seconds that the attempts of the chain were in a phase."""
        return sum(span.duration_s for _, spans in self.chain_logs for span in spans if span.phase is phase)

    @property
    def gpu_windows(self) -> tuple[DeviceWindow, ...]:
        """When its attempts held which GPUs."""
        return windows(entry for entry in self.entries if entry.kind == "gpu")

    @property
    def logged_windows(self) -> tuple[DeviceWindow, ...]:
        """The same by the energy log alone: what a witness can be asked about."""
        recovered = frozenset(self.recovered)
        return windows(entry for entry in self.entries if entry.kind == "gpu" and entry not in recovered)

    @property
    def unmetered(self) -> tuple[int, ...]:
        """Attempts that ended and have no entry of the GPUs they held: their energy is missing from every total."""
        metered = {entry.attempt for entry in self.entries if entry.kind == "gpu" or not self.job.spec.resources.gpus}
        ended = [attempt for attempt in self.job.attempts if attempt.state is not AttemptState.RUNNING]
        return tuple(attempt.number for attempt in ended if attempt.number not in metered)

    @property
    def partly_metered(self) -> tuple[str, ...]:
        """Kinds of devices that were metered in some of the ended attempts, and not in all."""
        ended = {attempt.number for attempt in self.job.attempts if attempt.state is not AttemptState.RUNNING}
        by_kind: dict[str, set[int | None]] = {}
        for entry in self.entries:
            by_kind.setdefault(entry.kind, set()).add(entry.attempt)
        return tuple(sorted(kind for kind, attempts in by_kind.items() if ended - attempts))

    @property
    def phases(self) -> dict[Phase, EnergySum]:
        """Energy per phase of the chain."""
        return by_phase(self.chain_entries)

    def entries_of(self, phase: Phase) -> tuple[EnergyEntry, ...]:
        """Energy booked to a phase of the chain, entry by entry."""
        return tuple(entry for entry in self.chain_entries if entry.phase is phase)

    def last_energy_of(self, phase: Phase) -> EnergySum | Unknown:
        """Energy of a phase of the last attempt alone."""
        if self.last is None:
            return Unknown(NOT_RUN)
        return sum_of(self.last_entries_of(phase)) or self._unbooked(phase)

    def last_entries_of(self, phase: Phase) -> tuple[EnergyEntry, ...]:
        """The same of the last attempt alone: for phases that an attempt does anew."""
        return tuple(entry for entry in self.entries_of(phase) if self.last and entry.attempt == self.last.number)

    def energy_of(self, phase: Phase) -> EnergySum | Unknown:
        """Energy of a phase of the chain."""
        if self.last is None:
            return Unknown(NOT_RUN)
        found = self.phases.get(phase)
        return self._unbooked(phase) if found is None else found

    def _unbooked(self, phase: Phase) -> Unknown:
        return Unknown(f"no energy was booked to the {phase} phase of {self.last_name}")

    def total(self) -> EnergySum | Unknown:
        """Energy of all attempts, of the devices that were metered; unknown where a job's GPUs never were."""
        if self.last is None:
            return Unknown(NOT_RUN)
        found = sum_of(self.entries)
        if found is not None and self.job.spec.resources.gpus and not self.gpu_windows:
            return Unknown("the energy log has no entries of this job's GPUs")
        if found is not None:
            return found
        torn = "; a file of those days cannot be read" if self.damaged else ""
        return Unknown(f"the energy log has no entries of this job{torn}")

    def unlogged(self, what: str) -> Unknown:
        """Why the last attempt's metric log does not tell ``what``."""
        if self.last is None:
            return Unknown(NOT_RUN)
        if not self.log.samples:
            return Unknown(f"{self.last_name} left no metric log")
        return Unknown(f"{self.last_name} ({self.last.state}) logged no {what}")


def gather(home: Home, jobs: Sequence[JobRecord], *, many: int = MANY_JOBS) -> tuple[Evidence, ...]:
    """Read the logs of ``jobs``; a job without logs has none, which is no error.

    From ``many`` jobs on, entries are joined within hours.
    """
    attempts = [attempt for job in jobs for attempt in job.attempts]
    days = [_days(attempt, slack_ns=NS_PER_DAY) for attempt in attempts]
    span = (min(first for first, _ in days), max(last for _, last in days)) if days else (NEVER, NEVER)
    job_ids = [job.job_id for job in jobs]
    read = read_energy_logs(home, job_ids=job_ids, days=span) if len(jobs) < many else read_many(home, job_ids)
    entries: dict[str, list[EnergyEntry]] = {job.job_id: [] for job in jobs}
    for entry in read.entries:
        if entry.job_id is not None:
            entries[entry.job_id].append(entry)
    baselines = read_baselines(home, jobs)
    found = (_evidence(home, job, tuple(entries[job.job_id]), read) for job in jobs)
    return tuple(replace(one, baseline=baselines.get(one.job.spec.baseline_job)) for one in found)


def _days(attempt: AttemptRecord, *, slack_ns: int = 0) -> tuple[str, str]:
    """First and last UTC date of an attempt; one that runs has no last day yet.

    The slack is for clocks of head and node that differ, and for what is booked after the end was seen.
    """
    last = NEVER if attempt.ended_ns is None else utc_date(attempt.ended_ns + slack_ns)
    return utc_date(max(0, attempt.started_ns - slack_ns)), last


def _evidence(home: Home, job: JobRecord, entries: tuple[EnergyEntry, ...], read: EnergyRead) -> Evidence:
    damaged = _is_damaged(job, entries, read)
    if not job.attempts:
        return Evidence(job=job, entries=entries, damaged=damaged, log=MetricRead(samples=(), unreadable=()), spans=())
    last = job.attempts[-1].number
    logs = _logs(home, job)
    log = logs.pop(last)
    spans = phase_spans(log.samples)
    of_chain = {**{number: phase_spans(read.samples) for number, read in logs.items()}, last: spans}
    phased = [entry for part in (entries, assumed(job, entries)) for entry in _in_phases(part, of_chain)]
    told = {attempt.number: _environments(home, job.job_id, attempt.number) for attempt in job.attempts}
    unmetered = told[last][0].get(UNMETERED)
    return Evidence(
        job=job,
        entries=tuple(phased),
        damaged=damaged,
        log=log,
        spans=spans,
        earlier=logs,
        why_unmetered={
            str(kind): str(why) for kind, why in (unmetered.items() if isinstance(unmetered, dict) else ()) if why
        },
        unconfirmed={
            number: str(record[UNCONFIRMED])
            for number, records in told.items()
            for record in records
            if record.get(UNCONFIRMED)
        },
        node_of={entry.device: read.node_of[entry.device] for entry in entries},
    )


def _logs(home: Home, job: JobRecord) -> dict[int, MetricRead]:
    """Metric logs of the attempts of the chain, by number."""
    read: dict[int, MetricRead] = {}

    def went_on_from(number: int) -> int | None:
        read[number] = read_metric_log(home, job.job_id, number)
        return resumed_from(read[number].samples)

    return {number: read[number] for number in chain_of(job.attempts, went_on_from)}


def _in_phases(entries: Sequence[EnergyEntry], spans: Mapping[int, tuple[PhaseSpan, ...]]) -> tuple[EnergyEntry, ...]:
    """The entries, those of the attempts in ``spans`` with the phases of their logs."""
    phased = [entry for entry in entries if entry.attempt not in spans]
    for number, own in spans.items():
        phased += in_phases([entry for entry in entries if entry.attempt == number], own)
    return tuple(phased)


def _environments(home: Home, job_id: str, attempt: int) -> tuple[Mapping[str, Any], ...]:
    """What each rank of an attempt kept of how it ran, the first's first."""
    first = _environment(home, job_id, attempt, 0)
    ranks = first.get(RANKS)
    more = range(1, ranks) if isinstance(ranks, int) else ()
    return (first, *(_environment(home, job_id, attempt, rank) for rank in more))


def _environment(home: Home, job_id: str, attempt: int, rank: int) -> Mapping[str, Any]:
    """What a rank kept of how it ran; nothing where it left no record that can be read."""
    path = home.attempt_folder(job_id, attempt) / environment_file(rank)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_damaged(job: JobRecord, entries: Sequence[EnergyEntry], read: EnergyRead) -> bool:
    """Whether a file was lost on a day of one of its attempts, on a node it is known to have used (or any, if none)."""
    nodes = {read.node_of[entry.device] for entry in entries}
    days = [_days(attempt) for attempt in job.attempts]
    return any(first <= date <= last for node, date in read.lost if not nodes or node in nodes for first, last in days)
