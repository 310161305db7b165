"""What the log has and what Prometheus stands in with add up to what was drawn, whatever part of the log is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.clocks import Clocks
from orchestrator.accounting.phases import PhaseSpan
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.recovered import Attempted, recover
from tests.unit.fake_prometheus import FakePrometheus
from tests.unit.ledger import START_S, at, attempt, entry
from workers.contract import Phase, Quality
from workers.home import Home


@given(
    watts=st.lists(st.integers(0, 700), min_size=4, max_size=40),
    lost=st.sets(st.integers(0, 39)),
    turn=st.integers(1, 39),
)
def test_nothing_is_lost_and_nothing_is_booked_twice(watts: list[int], lost: set[int], turn: int) -> None:
    seconds, turn = len(watts), min(turn, len(watts) - 1)
    entries = tuple(
        entry(second, second + 1, watts[second], Phase.LOAD if second < turn else Phase.TRAIN)
        for second in range(seconds)
        if second not in lost
    )
    counter = [sum(watts[:second]) for second in range(seconds + 1)]
    server = FakePrometheus()
    samples = [
        (START_S - 5, 0),
        *((START_S + s, joules) for s, joules in enumerate(counter)),
        (START_S + 90, counter[-1]),
    ]
    server.add("GPU-a", *samples, node="node-1", model="T4", kind="gpu", method="counter")
    server.lease("GPU-a", job_id="j", attempt=1, start_s=START_S, end_s=START_S + seconds)
    attempted = Attempted(
        job_id="j",
        record=attempt(),
        gpus=1,
        entries=entries,
        spans=(
            PhaseSpan(phase=Phase.LOAD, start_ns=at(0), end_ns=at(turn), complete=True),
            PhaseSpan(phase=Phase.TRAIN, start_ns=at(turn), end_ns=at(seconds), complete=True),
        ),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        PrometheusClient("http://p", transport=server.transport()) as prometheus,
    ):
        found = recover(attempted, prometheus, Clocks(Home(Path(folder))))
    assert sum(one.energy_mj for one in (*entries, *found)) == 1000 * counter[-1]
    for phase, start, end in ((Phase.LOAD, 0, turn), (Phase.TRAIN, turn, seconds)):
        booked = sum(one.energy_mj for one in (*entries, *found) if one.phase is phase)
        assert booked == 1000 * (counter[end] - counter[start])
    assert all(Quality.FALLBACK in one.quality for one in found)
    assert bool(found) == bool(lost & set(range(seconds)))
