"""Which figure counts: the energy log where it is whole, Prometheus where a node's log is lost, and always said."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.accounting.clocks import ClockReading, note_clocks
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.lifecycle import AttemptState, JobRecord
from tests.unit.fake_prometheus import FakePrometheus, Waits
from tests.unit.ledger import START_S, Ledger, at, attempt, entry, job, standard_entries
from workers.contract import Phase
from workers.units import NS_PER_S

LABELS = {"node": "node-1", "model": "T4", "kind": "gpu", "method": "counter"}
WATTS = 100.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def server(*devices: str, watts: float = WATTS, **labels: str) -> FakePrometheus:
    """A server that saw ``devices`` draw a constant power and job ``j`` hold them."""
    made = FakePrometheus()
    for device in devices or ("GPU-a",):
        made.ramp(device, start_s=START_S - 60, end_s=START_S + 80, watts=watts, **{**LABELS, **labels})
        made.lease(device, job_id="j", attempt=1, start_s=START_S, end_s=START_S + 14)
    return made


def account(ledger: Ledger, record: JobRecord, answers: FakePrometheus | None) -> Account:
    prometheus = None
    if answers is not None:
        waits = Waits()
        prometheus = PrometheusClient(
            "http://p", transport=answers.transport(), monotonic_s=waits.monotonic_s, sleep_s=waits.sleep_s
        )
    (built,) = build_accounts(ledger.home, [record], prometheus=prometheus)
    return built


def test_a_lost_log_without_a_server_stays_unknown_and_is_told(ledger: Ledger) -> None:
    ledger.log_standard()
    found = account(ledger, job(attempt()), None)
    assert (found.row.energy_kwh, found.row.energy_quality) == (None, None)
    assert found.notes == ("the energy log has no GPU of attempt 1, and no Prometheus server was asked for it",)


def test_a_lost_log_of_which_the_server_knows_nothing_stays_unknown(ledger: Ledger) -> None:
    ledger.log_standard()
    found = account(ledger, job(attempt()), FakePrometheus())
    assert found.row.energy_kwh is None
    assert found.notes == ("the energy log has no GPU of attempt 1, and Prometheus has no samples of it",)


def test_a_server_that_does_not_answer_for_a_lost_log_is_told(ledger: Ledger) -> None:
    ledger.log_standard()
    found = account(ledger, job(attempt()), FakePrometheus(sick=1000))
    assert found.row.energy_kwh is None
    (note,) = found.notes
    assert note.startswith("the energy log has no GPU of attempt 1, and Prometheus at http://p does not answer")


def test_a_lost_log_is_stood_in_for_by_the_counters_of_the_devices_the_job_held(ledger: Ledger) -> None:
    ledger.log_standard()
    found = account(ledger, job(attempt()), server())
    # 14 s at 100 W, cut at the phases of the metric log.
    assert found.row.energy_kwh == pytest.approx(1400 / 3.6e6, rel=1e-9)
    assert found.row.energy_by_phase_kwh == {
        phase: pytest.approx(joules / 3.6e6, rel=1e-9)
        for phase, joules in (("load", 200), ("baseline", 100), ("train", 1000), ("evaluate", 100))
    }
    assert (found.row.energy_method, found.row.energy_quality) == ("counter", ("fallback",))
    assert found.row.joules_per_sample == pytest.approx(1.0, rel=1e-9)
    assert found.row.energy_disagreement_percent is None
    assert found.notes == (
        "the energy log has no GPU of attempt 1: Prometheus' samples of the device's counter stand in for it",
    )


def test_what_stands_in_is_as_sure_as_its_counter_says(ledger: Ledger) -> None:
    ledger.log_standard()
    assert account(ledger, job(attempt()), server(method="simulated")).row.energy_method == "simulated"
    assert account(ledger, job(attempt()), server(method="guessed")).row.energy_method == "modelled"


def test_without_a_metric_log_the_samples_of_the_lease_tell_the_time(ledger: Ledger) -> None:
    found = account(ledger, job(attempt()), server())
    assert found.row.energy_kwh == pytest.approx(1400 / 3.6e6, rel=1e-9)
    assert found.row.energy_by_phase_kwh is None


def test_several_devices_add_up_and_one_that_is_missing_is_found(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    found = account(ledger, job(attempt(), resources={"gpus": 2}), server("GPU-a", "GPU-b"))
    assert found.row.energy_kwh == pytest.approx((3600 + 1400) / 3.6e6, rel=1e-9)
    assert found.row.energy_quality == ("fallback",)
    # The witness speaks of what the log has: 1,400 J against 3,600 J.
    assert found.row.energy_disagreement_percent == pytest.approx(100 * (1400 - 3600) / 3600, rel=1e-9)


def test_a_device_that_two_jobs_held_is_split_equally_and_flagged(ledger: Ledger) -> None:
    ledger.log_standard()
    answers = server()
    answers.lease("GPU-a", job_id="other", attempt=3, start_s=START_S + 5, end_s=START_S + 50)
    found = account(ledger, job(attempt()), answers)
    assert found.row.energy_kwh == pytest.approx(700 / 3.6e6, rel=1e-9)
    assert found.row.energy_quality == ("fallback", "shared")


def test_a_hole_in_the_log_is_filled_and_the_rest_stands(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 3, 450, Phase.BASELINE))
    ledger.book(entry(3, 6, 540, Phase.TRAIN), entry(8, 13, 900, Phase.TRAIN), entry(13, 14, 450, Phase.EVALUATE))
    ledger.log_standard()
    found = account(ledger, job(attempt()), server())
    assert found.row.energy_kwh == pytest.approx((3240 + 200) / 3.6e6, rel=1e-9)
    assert found.row.energy_by_phase_kwh is not None
    assert found.row.energy_by_phase_kwh["train"] == pytest.approx(1640 / 3.6e6, rel=1e-9)
    assert found.row.energy_quality == ("fallback",)
    assert found.notes == (
        "the energy log has holes in attempt 1: Prometheus' samples of the device's counter stand in for it",
    )


def test_a_hole_that_nobody_fills_is_a_gap(ledger: Ledger) -> None:
    ledger.book(entry(0, 5, 900, Phase.TRAIN), entry(8, 14, 900, Phase.TRAIN))
    ledger.log_standard()
    found = account(ledger, job(attempt()), None)
    assert (found.row.energy_kwh, found.row.energy_quality) == (0.0005, ("gap",))


def test_samples_that_end_with_the_node_leave_a_gap_and_nothing_made_up(ledger: Ledger) -> None:
    ledger.log_standard()
    answers = FakePrometheus()
    answers.ramp("GPU-a", start_s=START_S - 60, end_s=START_S + 9, watts=WATTS, **LABELS)
    answers.lease("GPU-a", job_id="j", attempt=1, start_s=START_S, end_s=START_S + 9)
    found = account(ledger, job(attempt()), answers)
    assert found.row.energy_kwh == pytest.approx(900 / 3.6e6, rel=1e-9)
    assert found.row.energy_quality == ("fallback", "gap")


def test_a_running_attempt_lacks_nothing(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.TRAIN, 2, None)
    assert account(ledger, job(attempt(1, AttemptState.RUNNING)), None).notes == ()


def test_an_attempt_that_failed_is_stood_in_for_as_waste(ledger: Ledger) -> None:
    answers = server()
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.book(*(e for e in standard_entries(number=2)))
    ledger.log_standard(number=2)
    found = account(ledger, job(attempt(1, AttemptState.FAILED), attempt(2)), answers)
    assert found.row.energy_wasted_kwh == pytest.approx(200 / 3.6e6, rel=1e-9)


def skew(ledger: Ledger, seconds: float, *, uncertain_s: float = 0.001) -> None:
    reading = ClockReading(
        node="node-1",
        time_ns=at(0),
        offset_ns=round(seconds * NS_PER_S),
        uncertainty_ns=round(uncertain_s * NS_PER_S),
    )
    note_clocks(ledger.home, [reading])


def stepped(step_s: float) -> FakePrometheus:
    """A device that drew nothing but from the start to 14 s after it, by the server's clock; 3,600 J in all."""
    made = FakePrometheus()
    samples = ((-60, 0.0), (0, 0.0), (14, 3600.0), (30, 3600.0))
    made.add("GPU-a", *((START_S + step_s + time_s, value) for time_s, value in samples), **LABELS)
    return made


def test_a_node_whose_clock_is_off_is_corrected_and_told(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    answers = stepped(-5.0)
    wrong = account(ledger, job(attempt()), answers).row.energy_disagreement_percent
    assert wrong == pytest.approx(-100 * 5 / 14, rel=1e-9)
    skew(ledger, 5.0)
    found = account(ledger, job(attempt()), answers)
    assert found.row.energy_disagreement_percent == pytest.approx(0.0, abs=1e-9)
    (note,) = found.notes
    assert note.startswith("the clock of node-1 is 5 s ahead of the head's: its times were corrected")


def test_a_clock_that_is_off_by_less_than_a_second_is_corrected_and_not_worth_a_word(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    skew(ledger, -0.9)
    found = account(ledger, job(attempt()), stepped(0.9))
    assert found.row.energy_disagreement_percent == pytest.approx(0.0, abs=1e-9)
    assert found.notes == ()
