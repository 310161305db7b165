"""``python -m tests.bench.cost``: what metering eight boards costs, ours and its peers, at 1 and 10 Hz.

Processor seconds per second and resident memory of the metering process with its children, one meter at a time, once
it has settled; the simulated driver is a process of its own and not counted. ``same calls`` is a bare loop of the very
NVML calls of our agent's reading, ``bare`` one of power alone. Our agent runs whole, with its ledger, a lease on one
board and its exporter, which is not scraped. Writes ``results/cost.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.bench.environment import PEERS, RESULTS, heading, peers_python
from tests.bench.figures import table
from tests.bench.rig import our_agent, peer
from tests.driver.build import build_library
from tests.driver.driver import Driver

BOARDS = 8
OURS, SAME = "ours", "same calls"
METERS = {OURS: "", **{name: f"{name}-all" for name in PEERS}, SAME: "same-all", "bare": "bare-all"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor seconds per second, MB resident, and NVML calls per second of one meter at one rate."""

    cpu: float
    rss_mb: float
    calls: float


def watch(pid: int, driver: Driver, *, settle_s: float, length_s: float) -> Cost:
    """What a process and its children take, and what of ``driver`` they ask."""
    process = psutil.Process(pid)
    time.sleep(settle_s)
    before_s, before_calls, started_s = _cpu_s(process), driver.order("calls"), time.monotonic()
    time.sleep(length_s)
    spent_s, calls, passed_s = (
        _cpu_s(process) - before_s,
        driver.order("calls") - before_calls,
        time.monotonic() - started_s,
    )
    rss = sum(member.memory_info().rss for member in [process, *process.children(recursive=True)])
    return Cost(cpu=spent_s / passed_s, rss_mb=rss / 1e6, calls=calls / passed_s)


def _cpu_s(process: psutil.Process) -> float:
    """By the processes' own clocks, in ns, ended threads included; ``cpu_times`` counts in hundredths of a second."""
    total_s = 0.0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(OSError):
            total_s += time.clock_gettime(~member.pid << 3 | 2)
    return total_s


def cost(name: str, library: Path, *, python: Path, hertz: int, settle_s: float, length_s: float) -> Cost:
    """One meter, alone."""
    with Driver(library, [{}] * BOARDS) as driver, contextlib.ExitStack() as ends:
        environment = {**driver.environment, "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(BOARDS)))}
        driver.order("load", board=0, processes={"1": 0.5})
        if name == OURS:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            agent = ends.enter_context(our_agent(environment, folder, interval_ms=1000 // hertz))
            meter, pid = agent.job("job", environment), int(agent.info["pid"])
        else:
            meter = peer(python, METERS[name], 1 / hertz, environment)
            pid = meter.process.pid
        ends.callback(meter.close)
        meter.hear()
        meter.tell("begin", 0)
        meter.hear()
        return watch(pid, driver, settle_s=settle_s, length_s=length_s)


def render(costs: dict[str, dict[int, Cost]], about: dict[str, object]) -> str:
    """The table; ratios are to the same calls."""
    hertz = sorted(next(iter(costs.values())))
    columns = [
        "meter",
        *(f"CPU s/s at {rate} Hz (ratio)" for rate in hertz),
        *(f"MB at {rate} Hz" for rate in hertz),
        *(f"calls/s at {rate} Hz" for rate in hertz),
    ]
    rows = [
        [
            name,
            *(f"{found[rate].cpu:.4f} ({found[rate].cpu / costs[SAME][rate].cpu:.2f})" for rate in hertz),
            *(f"{found[rate].rss_mb:.0f}" for rate in hertz),
            *(f"{found[rate].calls:.0f}" for rate in hertz),
        ]
        for name, found in costs.items()
    ]
    return f"{BOARDS} boards\n{table(columns, rows)}\n\n{json.dumps(about)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="length of each measurement (default 20)")
    parser.add_argument("--only", default="", help="meters, by comma; `same calls` is always measured")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    chosen = [name for name in METERS if not options.only or name in {*options.only.split(","), SAME}]
    python = peers_python()
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder))
        costs = {
            name: {
                hertz: cost(name, library, python=python, hertz=hertz, settle_s=3, length_s=options.seconds)
                for hertz in (1, 10)
            }
            for name in chosen
        }
    about = heading(python)
    print(render(costs, about))
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cost.txt").write_text(render(costs, about))
        told = {name: {rate: asdict(value) for rate, value in found.items()} for name, found in costs.items()}
        (RESULTS / "cost.json").write_text(json.dumps({"about": about, "results": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
