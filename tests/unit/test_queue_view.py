"""The queue as people see it: what is not known is not guessed, a dead controller is told, each waits for a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.queue_view import JobView, QueueView, eta_s, in_line, look
from orchestrator.queue_view.controllers import QUIET_NS
from tests.unit.ledger import at
from tests.unit.queue_ledger import QueueLedger, node, progress
from workers.units import NS_PER_S

H100, T4 = node("node-1", "H100"), node("node-2", "T4", simulated=False)
QUIET_S = QUIET_NS / NS_PER_S


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[QueueLedger]:
    made = QueueLedger(tmp_path)
    yield made
    made.store.close()


def view_of(ledger: QueueLedger, *, at_s: float = 1) -> QueueView:
    return look(ledger.home, ledger.store, ledger.store.jobs(), now_ns=at(at_s))


def jobs_of(ledger: QueueLedger, *, at_s: float = 1) -> dict[str, JobView]:
    return {job.job_id: job for job in view_of(ledger, at_s=at_s).jobs}


class TestUnknown:
    def test_without_a_controller_a_job_waits_for_one_and_has_no_place(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        job = jobs_of(ledger)["j"]
        assert (job.waits, job.place, job.impossible) == (
            "waits for a controller; start one: wattledger up",
            None,
            False,
        )
        assert view_of(ledger).controller_lines() == ["controller: not running; start one: wattledger up"]

    def test_a_controller_that_fell_silent_is_told_with_the_remedy_and_what_it_saw_still_serves(
        self, ledger: QueueLedger
    ) -> None:
        ledger.submit("r", "j", resources={"accelerators": ["H100"]})
        ledger.beat(H100, at_s=0)
        view = view_of(ledger, at_s=QUIET_S)
        assert not view.is_served(view.jobs[0].record)
        assert view.controller_lines() == [
            "controller: not running: last heard of 15 s ago, on head; start one: wattledger up"
        ]
        assert str(view.jobs[0].waits).startswith("waits for an H100: the only one is busy")

    def test_a_controller_that_beats_lives_and_tells_its_trouble(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        ledger.beat(H100, at_s=0, trouble="the disk is full")
        view = view_of(ledger, at_s=QUIET_S - 1)
        assert view.is_served(view.jobs[0].record)
        assert view.controller_lines() == [
            "controller: runs on head since 2024-01-01 11:00:00Z, in trouble: the disk is full"
        ]

    def test_nodes_that_are_not_known_any_more_are_told_by_id(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        ledger.beat(T4)
        ledger.start("j", H100)
        job = jobs_of(ledger)["j"]
        assert (job.nodes, job.simulated) == ((H100.node_id,), None)

    @pytest.mark.parametrize(
        "told",
        [
            progress(0, 10),
            progress(5, 10, job_total=0),
            progress(5, 10, started_ns=0),
            progress(5, 10, carried=5, job_carried=5),
        ],
    )
    def test_an_end_is_not_guessed_before_a_unit_of_its_own_is_done(self, told: object) -> None:
        assert eta_s(told, at(100)) is None

    def test_a_job_that_ended_waits_for_nothing_and_has_no_end_ahead(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j")
        ledger.start("j", H100)
        ledger.progress("j", 1, 5, 10, at_s=10)
        ledger.end("j", 1, AttemptState.FAILED, JobState.FAILED, reason="it broke")
        job = jobs_of(ledger)["j"]
        assert (job.waits, job.place, job.progress, job.eta_s, job.why) == (None, None, None, None, "it broke")
        assert view_of(ledger).controller_lines() == [], "nobody needs one"


class TestEnds:
    def test_the_rest_goes_at_the_pace_so_far(self) -> None:
        assert eta_s(progress(25, 100, at_s=100), at(100)) == 300.0

    def test_what_an_earlier_attempt_did_took_no_time(self) -> None:
        assert eta_s(progress(75, 100, at_s=100, carried=50, job_carried=50), at(100)) == 100.0

    def test_this_phase_goes_at_its_own_pace_and_later_ones_at_that_of_all(self) -> None:
        # 20 units in 100 s, of which 10 in the last 20 s; 30 are left here and 5 afterwards.
        told = progress(10, 40, at_s=100, phase_started_ns=at(80), job_done=20, job_total=55)
        assert eta_s(told, at(100)) == 30 * 2.0 + 5 * 5.0

    def test_it_falls_as_time_passes_but_not_below_nothing(self) -> None:
        told = progress(50, 100, at_s=100)
        assert eta_s(told, at(160)) == 40.0
        assert eta_s(told, at(1000)) == 0.0

    @given(done=st.integers(1, 1000), more=st.integers(0, 1000), steady_s=st.integers(1, 100))
    def test_of_a_steady_attempt_it_is_the_end(self, done: int, more: int, steady_s: int) -> None:
        told = progress(done, done + more, at_s=done * steady_s)
        assert eta_s(told, at(done * steady_s)) == pytest.approx(more * steady_s, rel=1e-12)


class TestLine:
    def test_a_job_that_no_node_could_run_is_told_so(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "j", resources={"accelerators": ["B200"]})
        ledger.beat(H100)
        job = jobs_of(ledger)["j"]
        assert job.impossible
        assert job.waits is not None
        assert job.waits.startswith("no node has a B200")

    def test_a_job_that_needs_another_waits_for_it_and_is_not_in_line(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "a")
        ledger.submit("s", "b", needs=["a"])
        ledger.beat(H100)
        ledger.start("a", H100)
        job = jobs_of(ledger)["b"]
        assert (job.waits, job.place) == ("waits for a, which runs", None)

    def test_a_job_whose_need_ended_long_ago_is_in_line(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "a")
        ledger.submit("s", "b", needs=["a"])
        ledger.beat(H100)
        ledger.start("a", H100)
        ledger.end("a", 1, AttemptState.SUCCEEDED, JobState.SUCCEEDED)
        assert jobs_of(ledger)["b"].place == 1

    def test_places_are_counted_in_the_order_of_the_line(self, ledger: QueueLedger) -> None:
        ledger.submit("r", "a", "b", at_s=-60)
        ledger.submit("s", "c", at_s=-50, schedule={"priority": 1})
        ledger.beat(H100)
        found = jobs_of(ledger)
        assert [(name, found[name].place, found[name].in_line) for name in ("c", "a", "b")] == [
            ("c", 1, 3),
            ("a", 2, 3),
            ("b", 3, 3),
        ]

    def test_a_bound_run_is_seen_by_its_own_controller_alone(self, ledger: QueueLedger) -> None:
        ledger.submit("local-1", "j", bound=True, resources={"accelerators": ["T4"]})
        ledger.submit("r", "k", resources={"accelerators": ["T4"]})
        ledger.beat(H100)
        ledger.beat(T4, name="controller-local-1")
        found = jobs_of(ledger)
        assert not found["j"].impossible
        assert found["k"].impossible
        assert [line.partition(":")[0] for line in view_of(ledger).controller_lines()] == [
            "controller",
            "controller-local-1",
        ]

    def test_what_runs_comes_first_then_the_line_then_what_needs_others_then_what_ended(
        self, ledger: QueueLedger
    ) -> None:
        ledger.submit("r", "ended", "first", "second", "runs-late", "runs-early")
        ledger.submit("s", "needs", needs=["first"], schedule={"priority": 9})
        ledger.beat(H100, T4)
        for name, at_s in (("ended", 0), ("runs-early", 1), ("runs-late", 2)):
            ledger.start(name, H100, at_s=at_s)
        ledger.end("ended", 1, AttemptState.SUCCEEDED, JobState.SUCCEEDED)
        assert [job.job_id for job in in_line(view_of(ledger).jobs)] == [
            "runs-early",
            "runs-late",
            "first",
            "second",
            "needs",
            "ended",
        ]


def test_a_running_job_has_its_nodes_by_name_its_progress_and_its_end(ledger: QueueLedger) -> None:
    ledger.submit("r", "j", resources={"nodes": 2})
    ledger.beat(H100, T4)
    ledger.start("j", H100, T4)
    ledger.progress("j", 1, 25, 100, at_s=100)
    job = jobs_of(ledger, at_s=100)["j"]
    assert (job.nodes, job.simulated, job.eta_s) == (("node-1", "node-2"), True, 300.0)
    told = job.as_dict()
    assert told["progress"]["fraction"] == 0.25
    assert told["attempts"][0]["state"] == "running"
