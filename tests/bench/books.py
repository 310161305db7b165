"""``python -m tests.bench.books FOLDER``: the books of a synthetic cluster, with the truth of every job known.

Jobs of one to eight GPUs follow each other on each node with idle time between; some fail and are tried again, some
share a device, some stretches carry flags, and entries of one job name no job the store knows. Entries are a minute
long, and a second long for half a minute on either side of every edge of a job or phase. Closed days are one file for
each node, as after ``wattledger compact`` (which would merge the seconds of a minute); the last day is in small files.

Everything is made up: power levels are rough fractions of each board's TDP, and method is ``simulated``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import RunRecord, Store
from tests.bench.holds import DAY_S, FULL, PHASES, Attempt, Hold, Size, device_spans, schedule
from workers.contract import JobSpec, Method, Quality
from workers.home import Home
from workers.metric_log import PHASE_END, PHASE_START, SAMPLES, SCORE_PREFIX, TOTAL_PARAMETERS, TRAINABLE_PARAMETERS
from workers.telemetry.energy_log import utc_date
from workers.units import NS_PER_S

START_S = 1_767_225_600
"""2026-01-01T00:00:00Z."""
EDGE_S = 30
"""Seconds at 1 Hz on either side of an edge."""
TDP_W = {"H100": 700, "A100-80GB": 400, "L4": 72, "T4": 70}
MODELS = ("tiny/vit", "tiny/convnext", "tiny/resnet")
LOAD = (0.3, 0.8, 0.9, 0.75, 0.6)
"""Of the TDP, by phase; idle is ``IDLE``."""
IDLE = 0.1
QUALITIES: tuple[list[str], ...] = ([], [Quality.SHARED], [Quality.GAP], [Quality.RESET])
CPU_W = 120


@dataclass(kw_only=True)
class Books:
    """What was made.

    Attributes:
        truth_mj: energy by job id; ``None`` is idle.
        holds: job, device, and start and end in seconds from the start, for every attempt and device.
    """

    home: Home
    size: Size
    attempts: list[Attempt] = field(default_factory=list)
    truth_mj: dict[str | None, int] = field(default_factory=dict)
    holds: list[tuple[int, str, int, int]] = field(default_factory=list)
    entries: int = 0
    files: int = 0
    bytes: int = 0


def job_name(number: int) -> str:
    """A job's id; job 1 is the one the store does not know."""
    return f"job-{number:05d}"


STRANGER = 1
"""The job that is in the energy log and not in the store."""


def accelerator(node: int) -> str:
    """A node has boards of one type."""
    return tuple(TDP_W)[node % len(TDP_W)]


def make_books(
    home: Home, size: Size, *, first_job: int = 0, jobs: int | None = None, days: range | None = None
) -> Books:
    """Write a cluster's logs and decisions; ``first_job``, ``jobs`` and ``days`` make more of one that is there."""
    made = Books(home=home, size=size)
    days = days or range(size.days)
    count = size.jobs if jobs is None else jobs
    for node in range(size.nodes):
        mine = range(first_job + node, first_job + count, size.nodes)
        rng = np.random.default_rng([size.seed, node, first_job])
        holds, attempts = schedule(mine, node, size, days, rng)
        made.attempts += attempts
        made.holds += device_spans(holds, node)
        _write_node(made, node, _columns(holds, node, size, rng), days, rng)
    _write_store(made, first_job, count)
    _write_metrics(made)
    return made


def _columns(holds: list[Hold], node: int, size: Size, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The holds cut into entries, as integer columns; times in seconds from the start."""
    table = np.array(
        [(h.gpu, h.start_s, h.end_s, h.job, h.attempt, h.phase, h.half, h.quality) for h in holds], dtype=np.int64
    )
    gpu, start, end, job, attempt, phase, half, quality = table.T
    head, tail = np.minimum(start + EDGE_S, end), np.maximum(end - EDGE_S, np.minimum(start + EDGE_S, end))
    middle = np.where(tail > head, (tail - 1) // 60 - head // 60 + 1, 0)
    counts = (head - start) + middle + (end - tail)
    row = np.repeat(np.arange(len(table)), counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ahead, inside = (head - start)[row], middle[row]
    within = place - ahead
    minute = (head // 60)[row] + within
    since = np.where(
        within < 0,
        start[row] + place,
        np.where(within < inside, np.maximum(head[row], minute * 60), tail[row] + within - inside),
    )
    until = np.where((within >= 0) & (within < inside), np.minimum(tail[row], (minute + 1) * 60), since + 1)
    tdp_mw = TDP_W[accelerator(node)] * 1000
    level = np.array([*LOAD, IDLE])[phase[row]]
    # A device that is shared draws what its two holders do together, half each.
    mw = tdp_mw * np.where(half[row] == 1, 0.4, level) * rng.uniform(0.9, 1.1, len(row))
    columns = {
        "gpu": gpu[row],
        "start": since,
        "end": until,
        "energy_mj": np.rint(mw * (until - since)).astype(np.int64),
        "job": job[row],
        "attempt": attempt[row],
        "phase": phase[row],
        "half": half[row],
        "quality": quality[row],
    }
    order = np.lexsort((columns["start"], columns["gpu"]))
    return {name: values[order] for name, values in columns.items()}


def _write_node(made: Books, node: int, columns: dict[str, np.ndarray], days: range, rng: np.random.Generator) -> None:
    for job, energy_mj in zip(*_sums(columns["job"], columns["energy_mj"]), strict=True):
        name = None if job < 0 else job_name(job)
        made.truth_mj[name] = made.truth_mj.get(name, 0) + energy_mj
    minutes = np.arange(days.start * 1440, days.stop * 1440) * 60
    cpu_mj = rng.integers(30 * CPU_W * 1000, 60 * CPU_W * 1000, len(minutes))
    made.truth_mj[None] = made.truth_mj.get(None, 0) + int(cpu_mj.sum())
    every = {name: np.concatenate([values, _cpu(name, minutes, cpu_mj)]) for name, values in columns.items()}
    day = every["start"] // DAY_S
    for number in days:
        _write_day(
            made,
            node,
            number,
            {name: values[day == number] for name, values in every.items()},
            number >= days.stop - made.size.open_days,
        )


def _cpu(name: str, minutes: np.ndarray, cpu_mj: np.ndarray) -> np.ndarray:
    """The host's CPU: a device of number -1, which is nobody's here."""
    fixed = {"start": minutes, "end": minutes + 60, "energy_mj": cpu_mj, "attempt": 0 * minutes}
    return fixed.get(name, 0 * minutes if name in {"half", "quality"} else 0 * minutes - 1)


def _sums(keys: np.ndarray, values: np.ndarray) -> tuple[list[int], list[int]]:
    """Exact integer sums by key."""
    found, where = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(found), dtype=np.int64)
    np.add.at(sums, where, values)
    return found.tolist(), sums.tolist()


def _write_day(made: Books, node: int, day: int, columns: dict[str, np.ndarray], is_open: bool) -> None:
    date = utc_date((START_S + day * DAY_S) * NS_PER_S)
    folder = made.home.energy(f"node-{node:03d}") / f"date={date}"
    folder.mkdir(parents=True, exist_ok=True)
    table = _table(node, columns)
    if not is_open:
        _write(made, folder / f"compact-{day:016d}.parquet", table)
        return
    part = columns["start"] // (60 * made.size.file_minutes)
    for number in np.unique(part):
        name = f"{(START_S + int(number) * 60 * made.size.file_minutes) * NS_PER_S}-boot-1-{int(number):06d}.parquet"
        _write(made, folder / name, table.filter(pa.array(part == number)))


def _table(node: int, columns: dict[str, np.ndarray]) -> pa.Table:
    """Columns of the energy log; text is held once for each value."""
    gpus, jobs, phase = columns["gpu"], columns["job"], columns["phase"]
    boards = [*(f"GPU-{node:03d}-{gpu}" for gpu in range(_gpus(gpus))), f"cpu-{node:03d}"]
    device = np.where(gpus < 0, len(boards) - 1, gpus)
    known, place = np.unique(jobs, return_inverse=True)
    names = [None if job < 0 else job_name(job) for job in known]
    return pa.table(
        {
            "start": _times(columns["start"]),
            "end": _times(columns["end"]),
            "device": _text(device, boards),
            "model": _text((gpus < 0).astype(int), [accelerator(node), "EPYC"]),
            "kind": _text((gpus < 0).astype(int), ["gpu", "cpu"]),
            "energy_mj": pa.array(columns["energy_mj"]),
            "job_id": pa.DictionaryArray.from_arrays(
                pa.array(np.maximum(place - (names[0] is None), 0), pa.int32(), mask=jobs < 0),
                [name for name in names if name] or [""],
            ),
            "attempt": pa.array(columns["attempt"], pa.int32(), mask=jobs < 0),
            "phase": pa.DictionaryArray.from_arrays(
                pa.array(np.maximum(phase, 0), pa.int32(), mask=phase < 0), [member.value for member in PHASES]
            ),
            "share": pa.array(np.where(columns["half"] == 1, 0.5, 1.0)),
            "method": _text(0 * gpus, [Method.SIMULATED.value]),
            "quality": _lists(columns["quality"]),
        }
    )


def _gpus(gpus: np.ndarray) -> int:
    """How many boards the rows are of."""
    return int(gpus.max(initial=0)) + 1


def _times(seconds: np.ndarray) -> pa.Array:
    return pa.array((START_S + seconds) * 1_000_000).cast(pa.timestamp("us", tz="UTC"))


def _text(places: np.ndarray, values: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), values)


def _lists(quality: np.ndarray) -> pa.ListArray:
    flagged = quality > 0
    offsets = np.concatenate([[0], np.cumsum(flagged)]).astype(np.int32)
    flags = pa.array(["", *(members[0] for members in QUALITIES[1:])]).take(pa.array(quality[flagged]))
    return pa.ListArray.from_arrays(pa.array(offsets), flags)


def _write(made: Books, path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", store_schema=False)
    made.entries += len(table)
    made.files += 1
    made.bytes += path.stat().st_size


def _write_store(made: Books, first_job: int, count: int) -> None:
    """The decisions, through the store's own door."""
    with contextlib.closing(Store(made.home.state_db)) as store:
        run = f"run-{first_job:05d}"
        record = RunRecord(run_id=run, name="synthetic", manifest="", submitted_ns=_ns(0), host="h", pid=1)
        jobs = [number for number in range(first_job, first_job + count) if number != STRANGER]
        store.submit(record, [_spec(number) for number in jobs])
        for attempt in sorted(made.attempts, key=lambda attempt: (attempt.job, attempt.number)):
            if attempt.job != STRANGER:
                _tell(store, attempt)


def _spec(number: int) -> JobSpec:
    return JobSpec(
        job_id=job_name(number), name="synthetic", task="digits", model=MODELS[number % len(MODELS)], seed=number
    )


def _tell(store: Store, attempt: Attempt) -> None:
    job_id, node = job_name(attempt.job), attempt.node
    place = (f"node-{node:03d}",)
    store.start_attempt(job_id, nodes=place, accelerator=accelerator(node), now_ns=_ns(attempt.start_s))
    state = AttemptState.FAILED if attempt.failed else AttemptState.SUCCEEDED
    store.end_attempt(
        job_id,
        attempt.number,
        state=state,
        reason="it was made to fail" if attempt.failed else None,
        then=JobState.QUEUED if attempt.failed else JobState.SUCCEEDED,
        now_ns=_ns(attempt.end_s),
    )


def _write_metrics(made: Books) -> None:
    """A small metric log for each attempt: the edges of its phases, its counts and scores."""
    for attempt in made.attempts:
        rows = list(_metrics(attempt))
        folder = made.home.metrics(job_name(attempt.job), attempt.number)
        folder.mkdir(parents=True, exist_ok=True)
        ts, phases, names, values = zip(*sorted(rows), strict=True)
        table = pa.table(
            {
                "ts": _times(np.array(ts)),
                "rank": pa.array([0] * len(rows), pa.int32()),
                "phase": pa.array(phases),
                "step": pa.nulls(len(rows), pa.int64()),
                "name": pa.array(names),
                "value": pa.array(values),
            }
        )
        pq.write_table(table, folder / "part-0-000000.parquet")


def _metrics(attempt: Attempt) -> Iterator[tuple[int, str, str, float]]:
    for phase, since, until in attempt.spans:
        name = PHASES[phase].value
        yield since, name, PHASE_START, 1.0
        if not attempt.failed or phase < 2:
            yield until, name, PHASE_END, 1.0
        if phase == 0:
            yield until, name, TRAINABLE_PARAMETERS, 20_000.0
            yield until, name, TOTAL_PARAMETERS, 100_000.0
        if phase == 2:
            yield until, name, SAMPLES, 1000.0
        if phase in {1, 3}:
            yield until, name, f"{SCORE_PREFIX}accuracy", 0.5 + 0.1 * phase


def _ns(seconds: int) -> int:
    return (START_S + seconds) * NS_PER_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder, or none")
    for name, value in vars(FULL).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    size = Size(**{name: getattr(options, name) for name in vars(FULL)})
    began = time.monotonic()
    made = make_books(Home(options.folder), size)
    told = {
        "entries": made.entries,
        "files": made.files,
        "MB": round(made.bytes / 1e6),
        "attempts": len(made.attempts),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps({**vars(size), **told}))


if __name__ == "__main__":
    main()
