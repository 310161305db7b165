"""A stand-in job of ours: ``python -m tests.bench.job SOCKET JOB_ID UUID`` leases a board between begin and end."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.peers import serve
from workers.contract import Phase, Power
from workers.errors import MeterError
from workers.telemetry.client import AgentConnection, HeldLease


class Job:
    """One attempt; its figure is what the agent confirms at the close."""

    def __init__(self, socket: Path, job_id: str, device: str) -> None:
        self._socket, self._job_id, self._device = socket, job_id, device
        self._connection = AgentConnection(socket)

    def begin(self) -> None:
        self._lease = HeldLease(
            self._connection,
            job_id=self._job_id,
            attempt=1,
            devices=[self._device],
            cpus=1.0,
            phase=Phase.TRAIN,
            power=Power(),
        )

    def end(self) -> float:
        energy_mj = self._lease.close()
        # A lease ends with its connection; the next one is opened here, not while the clock runs.
        self._connection = AgentConnection(self._socket)
        if energy_mj is None:
            raise MeterError(str(self._lease.unconfirmed))
        return energy_mj / 1000


if __name__ == "__main__":
    serve(lambda: Job(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
