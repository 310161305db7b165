"""``wattledger targets``: where each node's metrics are, as the controller tells Prometheus."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Sequence

from orchestrator import client
from orchestrator.cli import options
from orchestrator.cli.terminal import Column, print_table
from orchestrator.monitoring.discovery import ScrapeTarget, read_targets, target_groups
from orchestrator.scheduling.snapshot import ClusterView
from workers.telemetry.access import is_loopback


def targets(as_json: options.JsonOption = False, home: options.HomeOption = None) -> None:
    """List where each node's agent serves its metrics, and where Prometheus is told (http_sd_configs).

    With --json in Prometheus' own format, for file_sd_configs.
    """
    ledger = options.home_of(home)
    with contextlib.closing(client.open_store(ledger)) as store:
        record = client.serving_controller(store, ledger)
    found = read_targets(record.targets_url)
    if as_json:
        options.print_json(target_groups(found))
        return
    simulated = {node.name for node in ClusterView.from_json(record.cluster).nodes if node.simulated}
    _show(found, simulated, note=f"Prometheus follows them at {record.targets_url} (http_sd_configs)")


def _show(found: Sequence[ScrapeTarget], simulated: set[str], *, note: str) -> None:
    columns = [Column(heading=heading) for heading in ("node", "accelerator", "metrics", "scraped from")]
    rows = [
        [
            target.node,
            f"{target.accelerator}{' (simulated)' if target.node in simulated else ''}",
            target.metrics_url,
            "its own host alone"
            if is_loopback(urllib.parse.urlsplit(target.metrics_url).hostname or "")
            else "anywhere",
        ]
        for target in found
    ]
    print_table("Agents", columns, rows, [note])
