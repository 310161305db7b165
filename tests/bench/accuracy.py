"""``python -m tests.bench.accuracy``: our meter and its peers, window by window, against a known truth.

All meters run at once on one driver, each on a board of its own; the boards draw the same trace, each ``STAGGER_MS``
after the one before, so that the meters do not elbow each other out of the processor at their begins and ends.

A window is from when a meter's begin call returned until its end call was made, the time in which a job would have
worked, and its truth is what the board drew in it; our figure is what the ledger holds of the job afterwards. Writes
``results/accuracy.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.environment import PEERS, RESULTS, heading, peers_python
from tests.bench.figures import Outcome, cell, table
from tests.bench.rig import Meter, our_agent, peer
from tests.bench.scenarios import Scenario, scenarios
from tests.driver.build import build_library
from tests.driver.driver import Driver
from workers.contract import EnergyEntry

MS = 1_000_000
STAGGER_MS = 50
WAVE_MS = 27
"""How much earlier a wave begins at each repeat."""
OURS, BARE = "ours", "bare 1 s"
Results = dict[str, list[Outcome]]


def run_scenario(
    scenario: Scenario, library: Path, *, python: Path, peers: Sequence[str], lead_ms: int = 2500
) -> Results:
    """All meters over all windows of a scenario. ``python`` is the one that runs the peers and the bare loop."""
    results: Results = {name: [] for name in (OURS, *peers, BARE)}
    for repeat in range(scenario.repeats):
        offset_ms = 7 + repeat * 100 // scenario.repeats
        boards = [
            {
                "model": scenario.model,
                "offset_ms": offset_ms + STAGGER_MS * number,
                "changes": {"has_instant": scenario.has_instant},
            }
            for number in range(len(results))
        ]
        with Driver(library, boards) as driver:
            for name, found in _window(scenario, driver, python, peers, lead_ms, repeat * WAVE_MS).items():
                results[name] += found
    return results


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Window:
    """One meter for one job; ``board`` is its board."""

    name: str
    board: int
    job_id: str
    meter: Meter


def _window(
    scenario: Scenario, driver: Driver, python: Path, peers: Sequence[str], lead_ms: int, early_ms: int
) -> Results:
    kinds = {**dict.fromkeys(peers, ""), BARE: "bare"}
    environments = [{**driver.environment, "CUDA_VISIBLE_DEVICES": str(board)} for board in range(len(kinds) + 1)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as meters:
        with our_agent(environments[0], Path(folder)) as agent:
            windows: list[_Window] = []
            for job_id in (f"job-{number}" for number in range(scenario.jobs)):
                windows.append(_Window(name=OURS, board=0, job_id=job_id, meter=agent.job(job_id, environments[0])))
                for board, (name, kind) in enumerate(kinds.items(), 1):
                    meter = peer(python, kind or name, 1.0, environments[board])
                    windows.append(_Window(name=name, board=board, job_id=job_id, meter=meter))
            for window in windows:
                meters.callback(window.meter.close)
                window.meter.hear()
            start_ns = driver.order("now") + lead_ms * MS
            for board in range(len(environments)):
                _plan(scenario, driver, board, start_ns + board * STAGGER_MS * MS, early_ms)
            told = _measure(windows, start_ns, scenario.length_ms * MS)
            # What failed at the end is whole again by then, and what our agent still owes is booked.
            time.sleep(1.0)
        entries = agent.entries()
        results: Results = {}
        for window, (begun, ended) in zip(windows, told, strict=True):
            drawn_pj = driver.order("truth", board=window.board, start_ns=begun["at_ns"], end_ns=ended["at_ns"])
            error = str(begun.get("error") or ended.get("error") or "")
            joules = None if error else float(ended["joules"])
            found = Outcome(joules=joules, true_pj=drawn_pj // scenario.jobs, error=error)
            is_ours = window.name == OURS
            results.setdefault(window.name, []).append(_of_ledger(found, window.job_id, entries) if is_ours else found)
        return results


def _plan(scenario: Scenario, driver: Driver, board: int, start_ns: int, early_ms: int) -> None:
    """Order a board's whole course, resets and faults beforehand.

    What begins before the window begins ``early_ms`` earlier still, so that a wave meets it in another phase.
    """
    for at_ms, pieces in scenario.course:
        begin_ms = at_ms - early_ms if at_ms < 0 else at_ms
        parts = [(ms * MS, start_w * 1000, end_w * 1000) for ms, start_w, end_w in pieces]
        repeats = len(parts) > 1
        driver.order("draw", board=board, pieces=parts, repeats=repeats, at_ns=start_ns + begin_ms * MS)
    if scenario.reset_ms is not None:
        driver.order("reset", board=board, at_ns=start_ns + scenario.reset_ms * MS)
    for kind, since_ms, until_ms in scenario.faults:
        since_ns, until_ns = start_ns + since_ms * MS, start_ns + until_ms * MS
        driver.order("fault", kind=kind, board=board, since_ns=since_ns, until_ns=until_ns)


def _measure(windows: Sequence[_Window], start_ns: int, length_ns: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    for window in windows:
        window.meter.tell("begin", start_ns + window.board * STAGGER_MS * MS)
    begun = [window.meter.hear() for window in windows]
    for window in windows:
        window.meter.tell("end", start_ns + window.board * STAGGER_MS * MS + length_ns)
    return list(zip(begun, [window.meter.hear() for window in windows], strict=True))


def _of_ledger(found: Outcome, job_id: str, entries: Iterable[EnergyEntry]) -> Outcome:
    """Our figure is the ledger's."""
    mine = [entry for entry in entries if entry.job_id == job_id]
    flags = {str(flag) for entry in mine for flag in entry.quality}
    joules = sum(entry.energy_mj for entry in mine) / 1000
    return dataclasses.replace(found, joules=joules, flags=tuple(sorted(flags)))


def render(results: dict[str, Results], about: dict[str, object]) -> str:
    """The table and what it stands on."""
    columns = [OURS, *(name for name in next(iter(results.values())) if name != OURS)]
    rows = [[name, *(cell(found[column]) for column in columns)] for name, found in results.items()]
    return f"signed error in percent of the truth\n{table(['scenario', *columns], rows)}\n\n{json.dumps(about)}\n"


def save(results: dict[str, Results], about: dict[str, object]) -> None:
    """Text for people, JSON with every window for programs."""
    told = {
        row: {name: [dataclasses.asdict(one) for one in found] for name, found in of.items()}
        for row, of in results.items()
    }
    (RESULTS / "accuracy.txt").write_text(render(results, about))
    (RESULTS / "accuracy.json").write_text(json.dumps({"about": about, "results": told}, indent=1) + "\n")


def saved() -> dict[str, Results]:
    """The rows of the last result."""
    path = RESULTS / "accuracy.json"
    rows = json.loads(path.read_text())["results"] if path.exists() else {}
    return {
        row: {name: [Outcome(**{**one, "flags": tuple(one["flags"])}) for one in found] for name, found in of.items()}
        for row, of in rows.items()
    }


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios whose name contains this; the other rows are kept")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    python, known = peers_python(), saved()
    results: dict[str, Results] = {}
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder))
        for scenario in scenarios():
            if options.only in scenario.name:
                results[scenario.name] = run_scenario(scenario, library, python=python, peers=PEERS)
                print(scenario.name, {name: cell(found) for name, found in results[scenario.name].items()}, flush=True)
            elif scenario.name in known:
                results[scenario.name] = known[scenario.name]
    about = heading(python)
    print(render(results, about))
    if not options.no_save:
        save(results, about)


if __name__ == "__main__":
    main()
