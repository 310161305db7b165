"""``python -m tests.bench.rollup``: what a roll-up of a whole cluster costs, ours and two others on the same data.

Books of a synthetic cluster (``books.py``) are made, or taken from ``--books``. Measured, each in a process of its own:

- the full roll-up from the logs alone; again, from the sums that are kept; and after 100 more jobs on a new day;
- on a slice (the same kind of books, fewer nodes): the same, a range query per job on a real Prometheus, and pandas'
  ``merge_asof``. Ratios are of the slice, all of this run. Prometheus is not timed while it loads;
- reading a year of one node's log, in the files an agent writes and compacted.

``--save`` writes ``results/rollup.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.accounting.rollup import rollup
from orchestrator.accounting.rows import build_accounts
from orchestrator.books.compaction import compact
from orchestrator.books.database import MEMORY_LIMIT, open_books
from orchestrator.books.refresh import refresh
from orchestrator.store import Store
from tests.bench.books import START_S, Books, job_name, make_books
from tests.bench.environment import RESULTS, heading, peers_python
from tests.bench.figures import table
from tests.bench.holds import FULL, Size
from tests.bench.range_queries import Held, energy_by_job, errors_percent, load, server
from workers.home import Home
from workers.telemetry.energy_read import read_energy
from workers.units import mj_to_kwh

ONE_NODE = Size(nodes=1, gpus=2, days=365, jobs=120, open_days=365)
MORE_JOBS = 100


def roll_up(home: Home) -> dict[str, Any]:
    """Bring the books up to date and sum them by job and by model and accelerator: what is measured of ours."""
    with open_books(home) as books:
        refreshed = refresh(books)
        by_job = rollup(books, ["job"])
        rollup(books, ["model", "accelerator"])
        ((rows,),) = books.rows("SELECT count(*) FROM hours")
    return {
        "files": refreshed.summed,
        "jobs": refreshed.jobs,
        "hours": rows,
        "energy_mj": {str(row.keys["job"]): row.energy_mj for row in by_job},
    }


def report(home: Home) -> dict[str, Any]:
    """The whole report row of every job of the store, one by one."""
    with contextlib.closing(Store(home.state_db)) as store:
        accounts = build_accounts(home, store.jobs())
    return {"jobs": len(accounts), "kwh": {account.row.job_id: account.row.energy_kwh for account in accounts}}


def read_one_job(home: Home) -> dict[str, Any]:
    """All entries of one job, by the reader of reports."""
    return {"energy_mj": sum(entry.energy_mj for entry in read_energy(home, job_ids=[job_name(0)]))}


def compact_all(home: Home) -> dict[str, Any]:
    """Every day."""
    with open_books(home) as books:
        done = list(compact(books, before="9999-01-01"))
    assert not [day.problem for day in done if day.problem]
    return {
        "files": sum(day.files for day in done),
        "left": len(done),
        "MB": sum(day.bytes for day in done) / 1e6,
        "MB_left": sum(day.bytes_left for day in done) / 1e6,
    }


WORK: dict[str, Callable[[Home], dict[str, Any]]] = {
    "roll_up": roll_up,
    "report": report,
    "read": read_one_job,
    "compact": compact_all,
}


def measure(what: str, home: Home) -> None:
    """In the child: do it, and print what it cost."""
    began, cpu = time.perf_counter(), time.process_time()
    found = WORK[what](home)
    told = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps({**told, **found}))


def ours(what: str, home: Home) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.rollup", "--measure", what, "--books", str(home.root)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def ours_in_full(home: Home) -> dict[str, dict[str, Any]]:
    """From the logs alone, and again."""
    shutil.rmtree(home.root / "derived", ignore_errors=True)
    return {"from the logs": ours("roll_up", home), "again": ours("roll_up", home)}


def more_jobs(home: Home, size: Size) -> dict[str, Any]:
    """One more day with 100 more jobs, and what the roll-up costs then."""
    made = make_books(home, size, first_job=size.jobs, jobs=MORE_JOBS, days=range(size.days, size.days + 1))
    found = ours("roll_up", home)
    assert all(found["energy_mj"][job] == mj for job, mj in made.truth_mj.items() if job), "the increment is not exact"
    return {**found, "entries": made.entries}


def pandas(python: Path, home: Home, made: Books, folder: Path) -> dict[str, Any]:
    """By ``merge_asof.py``, with our files and the true spans of jobs."""
    held = sorted(holds(made), key=lambda hold: hold.start_s)
    times = {
        name: pa.array(np.array([getattr(hold, f"{name}_s") for hold in held]) * 1_000_000).cast(
            pa.timestamp("us", "UTC")
        )
        for name in ("start", "end")
    }
    spans = {"device": [hold.device for hold in held], **times, "job": [hold.job for hold in held]}
    pq.write_table(pa.table(spans), folder / "spans.parquet")
    command = [
        str(python),
        str(Path(__file__).with_name("merge_asof.py")),
        str(home.energy()),
        str(folder / "spans.parquet"),
    ]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def prometheus(home: Home, made: Books, folder: Path) -> dict[str, Any]:
    """By range queries; the server's processor time and memory and the client's."""
    samples, held = load(home, folder, made.size.days), holds(made)
    with server(folder) as url:
        (process,) = [child for child in psutil.Process().children() if child.name() == "prometheus"]
        before, cpu, began = sum(process.cpu_times()[:2]), time.process_time(), time.perf_counter()
        found = energy_by_job(url, held)
        return {
            "wall_s": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu + sum(process.cpu_times()[:2]) - before,
            "rss_mb": process.memory_info().rss / 2**20,
            "samples": samples,
            "energy_mj": {job: 1000 * joules for job, joules in found.items()},
        }


def holds(made: Books) -> list[Held]:
    """When each job held which device, as the generator knows it."""
    return [
        Held(job=job_name(job), device=device, start_s=START_S + start_s, end_s=START_S + end_s)
        for job, device, start_s, end_s in made.holds
    ]


def compare(python: Path, size: Size) -> dict[str, Any]:
    """Everybody on the slice."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        made = make_books(home, size)
        truth = {str(job): mj for job, mj in made.truth_mj.items()}
        found = {**ours_in_full(home), "pandas": pandas(python, home, made, Path(folder))}
        found["prometheus"] = prometheus(home, made, Path(folder))
        found["100 more"] = more_jobs(home, size)
        jobs = {job: float(mj) for job, mj in truth.items() if job != "None"}
        for name, one in found.items():
            errors = errors_percent(one.pop("energy_mj"), jobs)
            one["median_error_percent"], one["worst_error_percent"] = statistics.median(errors), errors[-1]
            assert name in {"pandas", "prometheus"} or errors[-1] == 0, f"{name} is not exact"
        return {"entries": made.entries, "jobs": len(jobs), "measured": found}


def whole(home: Home, size: Size, truth: dict[str, int] | None) -> dict[str, Any]:
    """Ours on the whole cluster."""
    rolled = ours_in_full(home)
    rows = ours("report", home)
    known = rolled["again"]["energy_mj"]
    assert all(kwh is None or kwh == mj_to_kwh(known[job]) for job, kwh in rows.pop("kwh").items())
    found = {**rolled, "100 more": more_jobs(home, size)}
    for one in found.values():
        energy = one.pop("energy_mj")
        assert truth is None or {job: energy[job] for job in truth if job != "None"} == {
            job: mj for job, mj in truth.items() if job != "None"
        }, "the roll-up is not exact"
    return {**found, "every job's report row": rows}


def a_year() -> dict[str, Any]:
    """One node's log of a year, as written and compacted."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        made = make_books(home, ONE_NODE)
        before = {"read": ours("read", home), **ours_in_full(home)}
        work = ours("compact", home)
        after = {"read": ours("read", home), **ours_in_full(home)}
        for name, one in before.items():
            assert one.pop("energy_mj") == after[name].pop("energy_mj"), f"{name}: compaction changed a figure"
        return {"entries": made.entries, "files": made.files, "before": before, "compaction": work, "after": after}


def render(found: dict[str, Any], about: dict[str, Any]) -> str:
    """The tables."""
    parts = []
    if "whole" in found:
        size = found["size"]
        parts.append(
            f"Whole cluster: {size['nodes'] * size['gpus']} GPUs, {size['days']} days, {size['jobs']} jobs, "
            f"{found['entries']} entries in {found['files']} files; DuckDB's limit {MEMORY_LIMIT}\n"
            + _costs(found["whole"])
        )
    if "slice" in found:
        part, measured = found["slice"], found["slice"]["measured"]
        parts.append(f"Slice of {part['jobs']} jobs, {part['entries']} entries\n" + _costs(measured))
        best = min(("pandas", "prometheus"), key=lambda name: measured[name]["wall_s"])
        ratios = [
            f"{name}: {measured[best]['wall_s'] / measured[name]['wall_s']:.1f} times faster than {best} "
            f"({measured[best]['cpu_s'] / measured[name]['cpu_s']:.1f} by processor time)"
            for name in ("from the logs", "again", "100 more")
        ]
        each_s = measured["prometheus"]["wall_s"] / part["jobs"]
        ratios.append(f"range queries for {MORE_JOBS} jobs alone take {MORE_JOBS * each_s:.2f} s at this run's mean")
        if "whole" in found:
            each_ms = [1000 * one["100 more"]["cpu_s"] / one["100 more"]["files"] for one in (measured, found["whole"])]
            ratios.append(
                f"each new file costs {each_ms[0]:.2f} ms of processor time beside {part['entries']} entries, "
                f"{each_ms[1]:.2f} ms beside {found['entries']}"
            )
        parts.append("On the slice, against the better of the two others\n" + "\n".join(ratios))
    if "year" in found:
        year = found["year"]
        rows = [
            [name, *(f"{year[when][name]['wall_s']:.2f}" for when in ("before", "after")),
             f"{year['before'][name]['wall_s'] / year['after'][name]['wall_s']:.1f}"]
            for name in year["before"]
        ]  # fmt: skip
        work = year["compaction"]
        parts.append(
            f"A year of one node, {year['entries']} entries: {work['files']} files ({work['MB']:.0f} MB), compacted "
            f"{work['left']} ({work['MB_left']:.0f} MB) in {work['wall_s']:.1f} s\n"
            + table(["", "as written s", "compacted s", "ratio"], rows)
        )
    return "\n\n".join([*parts, json.dumps(about)]) + "\n"


def _costs(measured: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{one['wall_s']:.2f}",
            f"{one['cpu_s']:.2f}",
            f"{one['rss_mb']:.0f}",
            str(one.get("files", "")),
            f"{one['median_error_percent']:.3f} ({one['worst_error_percent']:.2f})"
            if "worst_error_percent" in one
            else "",
        ]
        for name, one in measured.items()
    ]
    return table(["", "wall s", "CPU s", "peak MB", "new files", "error % median (worst)"], rows)


@contextlib.contextmanager
def _books(folder: Path | None, size: Size) -> Iterator[tuple[Home, dict[str, int] | None]]:
    """Those of a folder, with 100 more jobs taken away again; or new ones."""
    if folder is not None:
        yield Home(folder), None
        return
    with tempfile.TemporaryDirectory() as made_in:
        home = Home(Path(made_in) / "home")
        made = make_books(home, size)
        yield home, {str(job): mj for job, mj in made.truth_mj.items()}


def _about(python: Path) -> dict[str, Any]:
    """Machine, its load, and the releases that were measured."""
    pandas_version = "import pandas; print(pandas.__version__)"
    said = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for command in ([str(python), "-c", pandas_version], ["prometheus", "--version"])
    ]
    return {
        **heading(None),
        "peers": {"pandas": said[0].strip(), "prometheus": said[1].split()[2], "duckdb": version("duckdb")},
        "truth": "generated books, not a real cluster",
        "load": os.getloadavg(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, help="books that are there, made by tests.bench.books with its defaults")
    parser.add_argument("--nodes", type=int, default=FULL.nodes)
    parser.add_argument("--jobs", type=int, default=FULL.jobs)
    parser.add_argument("--slice-nodes", type=int, default=10)
    parser.add_argument("--only", default="whole,slice,year", help="parts, by comma")
    parser.add_argument("--save", action="store_true", help="write the results beside the others")
    parser.add_argument("--measure", choices=tuple(WORK), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, Home(options.books))
        return
    size = replace(FULL, nodes=options.nodes, jobs=options.jobs)
    part = replace(size, nodes=options.slice_nodes, jobs=size.jobs * options.slice_nodes // size.nodes)
    python = peers_python()
    found: dict[str, Any] = {"size": vars(size)}
    if "whole" in options.only:
        with _books(options.books, size) as (home, truth):
            files = list(home.energy().rglob("*.parquet"))
            found |= {"files": len(files), "entries": sum(pq.read_metadata(path).num_rows for path in files)}
            found["whole"] = whole(home, size, truth)
    if "slice" in options.only:
        found["slice"] = compare(python, part)
    if "year" in options.only:
        found["year"] = a_year()
    about = _about(python)
    print(render(found, about))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "rollup.txt").write_text(render(found, about))
        (RESULTS / "rollup.json").write_text(json.dumps({"about": about, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
