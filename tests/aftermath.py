"""What must hold on a cluster after something on it was killed: the energy books balance, and nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.monitoring.discovery import read_targets
from orchestrator.store import Store
from tests.cluster_contract import until
from tests.clusters import processes_with
from workers.contract import EnergyEntry
from workers.home import Home
from workers.telemetry.client import AgentConnection
from workers.telemetry.energy_read import read_energy_logs
from workers.telemetry.journal import Record, journals_below, read_journal
from workers.telemetry.protocol import socket_path
from workers.telemetry.state import from_json
from workers.units import MJ_PER_J, NS_PER_US

Agents = Callable[[], Mapping[str, str]]
"""Gives the agents that run now: node to where its metrics are."""
DASHBOARD_TOKEN = "RAY_AUTH_TOKEN_PATH"


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """Checks one ledger on a Ray cluster, as often as wanted, while no attempt runs.

    Attributes:
        dashboard_url: of the cluster's head.
        controllers: how many the ledger has.
        ahead_mj: device to by how much its counter was ahead of its books when it was looked at first, mJ: what it
            had counted when its agent began to read it. From then on both must grow by the same.
    """

    home: Path
    dashboard_url: str
    agents: Agents
    controllers: int = 1
    ahead_mj: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Nothing but agents and controllers is left of this ledger; and every joule is in its books, once."""
        agents = self.agents()
        wanted = {"workers.agent": len(agents), "orchestrator.serve": self.controllers}
        until(lambda: self.processes() == +Counter(wanted), f"no process to be left but {wanted}")
        actors = {"AgentActor": len(agents), "ControllerActor": self.controllers}
        until(lambda: self.actors() == +Counter(actors), f"no actor to be left but {actors}")
        assert self.placement_groups() == []
        for node, url in agents.items():
            self.assert_counted_is_booked(node, url)
        for node in self._nodes_without_power() - agents.keys():
            self.booked_up_to(node)
        self.assert_no_hole()

    def processes(self) -> Counter[str]:
        """Modules of this ledger's processes, and how many run each."""
        found: Counter[str] = Counter()
        for pid in processes_with(str(self.home)):
            with contextlib.suppress(psutil.NoSuchProcess):
                line = psutil.Process(pid).cmdline()
                found[line[line.index("-m") + 1] if "-m" in line else " ".join(line)] += 1
        return found

    def actors(self) -> Counter[str]:
        """Classes of Ray's actors that are not dead, and how many there are of each; whose is not asked."""
        return Counter(actor["class_name"] for actor in self._ray("actors") if actor["state"] != "DEAD")

    def placement_groups(self) -> list[str]:
        return [group["name"] for group in self._ray("placement_groups") if group["state"] != "REMOVED"]

    def _ray(self, what: str) -> list[dict[str, str]]:
        token = Path(os.environ[DASHBOARD_TOKEN]).read_text().strip()
        told = get(f"{self.dashboard_url}/api/v0/{what}", {"Authorization": f"Bearer {token}"})
        return list(json.loads(told)["data"]["result"]["result"])

    def assert_counted_is_booked(self, node: str, metrics_url: str) -> None:
        """Of each board of a node: the entries of all attempts and of idle are what it counted, to the millijoule."""
        before = counted_mj(metrics_url)
        with AgentConnection(socket_path(self.home, node)) as agent:
            agent.ask("flush")
        booked = self.booked_up_to(node)

        def has_all() -> bool:
            nonlocal booked
            booked = self.booked_up_to(node)
            return all(before[device] <= booked[device] for device in before)

        # A growth waits a moment for a closer look, and for the next record.
        until(has_all, f"the books of {node} to hold what was counted before")
        after = counted_mj(metrics_url)
        assert before.keys() == after.keys() == booked.keys() & before.keys() != set()
        assert all(booked[device] <= after[device] for device in before)

    def booked_up_to(self, node: str) -> dict[str, int]:
        """The counters up to which a node's devices are booked: what its entries are is what those counted.

        As its agent's last record has them: there a reading, and what was booked up to it, are of one time. It is
        there for as long as the agent runs, and where it lost power; one that left in order has made files of it.
        """
        entries: tuple[EnergyEntry, ...] = ()
        record = self._last_record(node)

        def is_of_one_time() -> bool:
            nonlocal entries, record
            record, entries = self._last_record(node), read_energy_logs(Home(self.home), node=node).entries
            return self._last_record(node).number == record.number

        until(is_of_one_time, f"the agent of {node} to write nothing for a moment")
        counted: dict[str, int] = {}
        for device, book in from_json(record.state).books.items():
            own = [entry.energy_mj for entry in entries if entry.device == device]
            # What a host's own device draws for nobody is no agent's to tell.
            if book.booked.energy_mj is not None and device.startswith("GPU-"):
                counted[device] = book.booked.energy_mj
                ahead_mj = counted[device] - sum(own)
                assert ahead_mj == self.ahead_mj.setdefault(device, ahead_mj) >= 0
        return counted

    def _nodes_without_power(self) -> set[str]:
        """And those whose agents run: each has a journal."""
        folders = {journal.parent.name for journal in journals_below(self.home / "energy")}
        return {name.removeprefix("node=") for name in folders}

    def _last_record(self, node: str) -> Record:
        journals = journals_below(Home(self.home).energy(node))
        return max((read_journal(journal)[-1] for journal in journals), key=lambda record: record.number)

    def assert_no_hole(self) -> None:
        """The entries of each board follow one another, those of boards whose node is gone too."""
        by_device: defaultdict[str, list[EnergyEntry]] = defaultdict(list)
        for entry in read_energy_logs(Home(self.home)).entries:
            if entry.kind == "gpu":
                by_device[entry.device].append(entry)
        assert self.ahead_mj.keys() <= by_device.keys()
        for entries in by_device.values():
            until_ns = entries[0].end_ns
            for entry in entries:
                # Times are kept to the microsecond.
                assert entry.start_ns <= until_ns + NS_PER_US
                until_ns = max(until_ns, entry.end_ns)


def targets_of(home: Path) -> Mapping[str, str]:
    """The agents that a ledger's one controller tells Prometheus of."""
    with contextlib.closing(Store(home / "state.db")) as store:
        (controller,) = store.controllers()
    return {target.node: target.metrics_url for target in read_targets(controller.targets_url)}


def get(url: str, headers: Mapping[str, str] | None = None) -> str:
    """What a server of this machine says."""
    parts = urllib.parse.urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request("GET", parts.path, headers=dict(headers or {}))
        return connection.getresponse().read().decode()


def counted_mj(metrics_url: str) -> dict[str, int]:
    """What each board of a node has counted since its agent started for the first time, mJ."""
    samples = (s for family in text_string_to_metric_families(get(metrics_url)) for s in family.samples)
    return {
        s.labels["device"]: round(MJ_PER_J * s.value)
        for s in samples
        if s.name == "wattledger_device_energy_joules_total" and s.labels["kind"] == "gpu"
    }
