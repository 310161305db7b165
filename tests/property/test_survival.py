"""The books balance when the agent is killed at any moment and another takes its place: no joule is lost or doubled."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.metering import simulated
from tests.property.test_conservation import NodeLife
from workers.contract import Lease, Power
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import RETURN_NS, NodeMeter
from workers.telemetry.state import from_json
from workers.telemetry.takeover import Told
from workers.units import NS_PER_S


class NodeSurvival(NodeLife):
    """A node's life in which its agent is killed too, with all that it had not written down since the last flush."""

    def __init__(self) -> None:
        super().__init__()
        self.written: tuple[int, str] = (0, "")
        self.the_agent_writes()

    @rule()
    def the_agent_writes(self) -> None:
        """Entries and state reach the disk together, as JSON."""
        taken, state = self.node.take()
        self.entries += taken
        self.written = len(self.entries), json.dumps(state)
        self.left.clear()

    @rule(away_ms=st.sampled_from([0, 100, 3000, 100_000]), data=st.data())
    def the_agent_is_killed_and_another_takes_its_place(self, away_ms: int, data: st.DataObject) -> None:
        count, state = self.written
        self.entries = self.entries[:count]
        self.clock.pass_ms(away_ms)
        for lease, _ in self.open.values():
            if lease.pid in self.processes.used_s:
                self.processes.work(lease.pid, data.draw(st.sampled_from([0.0, away_ms / 3000])))
        self.meter = simulated(self.clock, "H100", "V100", processes=self.processes)
        resume = from_json(json.loads(state))
        self.node = NodeMeter(self.meter, node="n1", clock_ns=self.clock, started=self.started, resume=resume)
        for lease_id, held in self.left.items():
            # Its close was not answered, so it tells the next agent.
            if held[0].pid in self.processes.used_s:
                back = self.node.resume(*self.told(held, lease_id, closed_ns=self.left_ns[lease_id]))
                self.left_ns[back.lease_id] = self.clock()
                self.node.close(back.lease_id)
        living = [lease_id for lease_id, (lease, _) in self.open.items() if lease.pid in self.processes.used_s]
        dead = self.open.keys() - set(living)
        late = [lease_id for lease_id in living if not (data.draw(st.booleans()) and self.holder_comes_back(lease_id))]
        self.clock.pass_ms(RETURN_NS * 1000 / NS_PER_S)
        self.node.tick()
        for lease_id in late:
            self.holder_comes_back(lease_id)
        for lease_id in dead:
            del self.open[lease_id]
            self.left_ns[lease_id] = self.clock()
        self.the_agent_writes()

    def told(
        self, held: tuple[Lease, Power], lease_id: str, *, closed_ns: int | None = None
    ) -> tuple[LeaseRequest, Told]:
        """What a holder tells an agent it has found again."""
        lease, power = held
        request = LeaseRequest(
            job_id=lease.job_id,
            attempt=1,
            devices=lease.devices,
            pid=lease.pid,
            cpus=1.0,
            phase=self.phases[lease_id][-1][1],
            power=power,
        )
        return request, Told(phases=tuple(self.phases[lease_id]), closed_ns=closed_ns)

    def holder_comes_back(self, lease_id: str) -> bool:
        held = self.open.pop(lease_id)
        back = self.node.resume(*self.told(held, lease_id))
        self.open[back.lease_id] = back, held[1]
        self.phases[back.lease_id] = self.phases[lease_id]
        return True

    @invariant()
    def every_lease_is_held_in_the_phase_its_holder_is_in(self) -> None:
        for status in self.node.snapshot().leases:
            if status.open:
                assert status.lease.phase == self.phases[status.lease.lease_id][-1][1]


TestNodeSurvival = NodeSurvival.TestCase
TestNodeSurvival.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
