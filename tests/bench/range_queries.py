"""Energy of each job by a real Prometheus: one range query per job over its devices' counters.

The server is given the same entries as counters, one sample at the end of each, and is not timed while it loads them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from workers.home import Home
from workers.logfolder import log_files

METRIC = "wattledger_device_energy_joules_total"
STEP_S, MAX_POINTS = 60, 10_000
"""A sample each minute, as the entries have; no more points than a server's limit of 11,000."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """When a job held a device; seconds since the epoch."""

    job: str
    device: str
    start_s: int
    end_s: int


def load(home: Home, folder: Path, days: int) -> int:
    """Make the server's blocks of a ledger's GPU entries, and give how many samples they have."""
    text, count = folder / "metrics.om", 0
    columns = ["end", "device", "kind", "energy_mj"]
    with text.open("w") as file:
        file.write(f"# TYPE {METRIC.removesuffix('_total')} counter\n")
        for node in sorted(home.energy().iterdir()):
            totals: dict[str, int] = defaultdict(int)
            table = pq.ParquetDataset([str(path) for path in log_files(node)], partitioning=None).read(columns)
            table = table.filter(pq.filters_to_expression([("kind", "==", "gpu")])).sort_by("end")
            rows = zip(
                table["end"].cast("int64").to_pylist(),
                table["device"].to_pylist(),
                table["energy_mj"].to_pylist(),
                strict=True,
            )
            lines: dict[tuple[str, int], int] = {}
            for end_us, device, energy_mj in rows:
                totals[device] += energy_mj
                lines[device, end_us // 1_000_000] = totals[device]  # a shared device has two entries of one end
            file.writelines(
                f'{METRIC}{{device="{device}"}} {mj / 1000} {end_s}\n' for (device, end_s), mj in lines.items()
            )
            count += len(lines)
        file.write("# EOF\n")
    command = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        "--max-block-duration",
        f"{24 * (days + 2)}h",
        "--quiet",
        "openmetrics",
    ]
    subprocess.run([*command, str(text), str(folder / "data")], check=True, stdout=subprocess.DEVNULL)
    text.unlink()
    return count


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server over the blocks, on loopback; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text("global: {}\n")
    options = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(["prometheus", *options])
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                return
        if process.poll() is not None:
            raise RuntimeError("prometheus ended by itself")
        time.sleep(0.1)
    raise RuntimeError("prometheus is not ready after a minute")


def energy_by_job(url: str, held: Sequence[Held]) -> dict[str, float]:
    """Joules of each job: one query for all its devices, edges interpolated between the samples around them."""
    by_job: dict[str, list[Held]] = defaultdict(list)
    for hold in held:
        by_job[hold.job].append(hold)
    with httpx.Client(trust_env=False, timeout=60) as client:
        return {job: _energy(client, url, holds) for job, holds in by_job.items()}


def _energy(client: httpx.Client, url: str, holds: Sequence[Held]) -> float:
    first, last = min(hold.start_s for hold in holds), max(hold.end_s for hold in holds)
    step = max(STEP_S, -(-(last - first + 2 * STEP_S) // MAX_POINTS))
    devices = "|".join(sorted({hold.device for hold in holds}))
    question = {"query": f'{METRIC}{{device=~"{devices}"}}', "start": first - step, "end": last + step, "step": step}
    answer = json.loads(client.get(f"{url}/api/v1/query_range?{urllib.parse.urlencode(question)}").content)
    curves = {series["metric"]["device"]: series["values"] for series in answer["data"]["result"]}
    return sum(_at(curves[h.device], h.end_s) - _at(curves[h.device], h.start_s) for h in holds)


def _at(curve: Sequence[Sequence[Any]], time_s: int) -> float:
    """The counter at a time, between the samples around it."""
    place = min(max(int((time_s - curve[0][0]) // max(1, curve[1][0] - curve[0][0])), 0), len(curve) - 2)
    (before_s, before), (after_s, after) = curve[place], curve[place + 1]
    return float(before) + (float(after) - float(before)) * (time_s - before_s) / (after_s - before_s)


def errors_percent(found: Mapping[str, float], truth: Mapping[str, float]) -> list[float]:
    """How far each job is from its truth, without sign, sorted."""
    return sorted(abs(100 * (found.get(job, 0.0) - true) / true) for job, true in truth.items() if true)
