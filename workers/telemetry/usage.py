"""Who kept the host's processors busy: what CPU and DRAM energy is shared out by.

A lease holds GPUs; the host's CPU is everybody's. So a CPU package's (and its DRAM's) energy of a span is booked by
measured share:

    attempt's part = energy x processor time of the attempt's process tree / busy processor time of the whole host

The rest, other users and an idle machine, is nobody's. Idle power thus falls on whoever keeps the processors busy, in
proportion; when nobody does, on nobody. The share is the host's: no process's time is known per package, and memory
traffic is not known per process at all, so every package and its DRAM are split alike.

**One host, several agents.** A local cluster has an agent per Ray node, and each of them sees the same package. Every
agent books only its own attempts' parts, out of the whole host's busy time, so parts of different agents never overlap.
The rest does: each agent would see the others' attempts in it. It is therefore kept in the books, where they must
balance, but written to the energy log and exported only by an agent that is told it is its host's only one
(``--only-agent``). Without that word nothing is counted twice, and what no attempt used is not in the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.contract import Lease
from workers.telemetry.procfs import ROOT, host_ticks, tree_ticks


class HostUsage:
    """Processor time per lease since the last look, in clock ticks. Not thread-safe.

    Args:
        proc: the procfs.
        meter: the process that meters; an attempt that started its own agent does not pay for it.

    Raises:
        UnmeteredError: there is no procfs.
    """

    def __init__(self, proc: Path = ROOT, *, meter: int | None = None) -> None:
        self._proc = proc
        self._meter = os.getpid() if meter is None else meter
        self._busy = host_ticks(proc).busy
        self._trees: dict[str, tuple[int, int | None]] = {}

    def attach(self, lease: Lease) -> None:
        """From now on the process tree of the lease counts; what it used before does not."""
        self._trees[lease.lease_id] = (lease.pid, self._ticks(lease.pid))

    def detach(self, lease: Lease) -> None:
        """The opposite of ``attach``; unknown leases are ignored."""
        self._trees.pop(lease.lease_id, None)

    def memory(self) -> Mapping[str, Any]:
        """What the last look saw, as JSON."""
        return {"busy": self._busy, "trees": {lease_id: ticks for lease_id, (_, ticks) in self._trees.items()}}

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:
        """Go on from the last look of another process since this host's last boot; ``leases`` are those still held."""
        self._busy = memory["busy"]
        self._trees = {lease.lease_id: (lease.pid, memory["trees"].get(lease.lease_id)) for lease in leases}

    def since(self) -> dict[str | None, int]:
        """Ticks used since the last call by each lease, and by everyone else (``None``).

        The kernel counts the host's and a process's time apart, so that leases may seem to use more than all did:
        then nothing is left for others.

        Raises:
            UnmeteredError: ``/proc/stat`` cannot be read; the next call that works covers this span too.
        """
        busy = host_ticks(self._proc).busy
        used: dict[str | None, int] = {}
        for lease_id, (pid, before) in self._trees.items():
            now = self._ticks(pid)
            used[lease_id] = 0 if now is None or before is None else max(0, now - before)
            if now is not None:
                self._trees[lease_id] = (pid, now)
        used[None] = max(0, busy - self._busy - sum(used.values()))
        self._busy = busy
        return used

    def _ticks(self, pid: int) -> int | None:
        return tree_ticks(pid, self._proc, but=(self._meter,))
