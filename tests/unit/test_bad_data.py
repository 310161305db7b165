"""Bad data gives a row that says so, with a reason: never an exception, never a silent zero. One case each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator import cegi
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.rows import build_rows
from orchestrator.lifecycle import JobRecord
from tests.unit.fake_prometheus import FakePrometheus, Waits
from tests.unit.ledger import START_S, Ledger, attempt, entry, job, standard_entries
from workers.contract import Phase
from workers.metric_log import POWER_CAP_WATTS, PREFILL_SECONDS, SAMPLES, SCORE_PREFIX, TOKENS, TRAINABLE_PARAMETERS


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def row(ledger: Ledger, record: JobRecord, server: FakePrometheus | None = None) -> ReportRow:
    waits = Waits()
    prometheus = None
    if server is not None:
        prometheus = PrometheusClient(
            "http://p", transport=server.transport(), monotonic_s=waits.monotonic_s, sleep_s=waits.sleep_s
        )
    (built,) = build_rows(ledger.home, [record], prometheus=prometheus)
    return built


def full(ledger: Ledger) -> JobRecord:
    ledger.book(*standard_entries())
    ledger.log_standard()
    return job(attempt())


def tear(path: Path) -> None:
    """Cut a file off in the middle, as a full disk does."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_a_torn_file_of_the_energy_log_is_a_gap_and_its_energy_is_missing_not_zero(ledger: Ledger) -> None:
    ledger.book(*(one for one in standard_entries() if one.phase is not Phase.TRAIN))
    ledger.log_standard()
    ledger.book(*(one for one in standard_entries() if one.phase is Phase.TRAIN))
    (torn,) = [path for path in ledger.home.energy().rglob("*.parquet") if "boot-1" in path.name]
    tear(torn)
    built = row(ledger, job(attempt()))
    assert (built.energy_kwh, built.energy_quality) == (0.0005, ("gap",))
    assert (built.cegi_g, built.joules_per_sample) == (None, None)
    assert built.reasons["joules_per_sample"] == "no energy was booked to the train phase of attempt 1"


def test_a_torn_file_of_the_energy_log_is_made_good_by_prometheus_and_flagged(ledger: Ledger) -> None:
    test_a_torn_file_of_the_energy_log_is_a_gap_and_its_energy_is_missing_not_zero(ledger)
    server = FakePrometheus()
    server.ramp(
        "GPU-a", start_s=START_S - 5, end_s=START_S + 20, watts=180, method="counter", node="node-1", model="T4"
    )
    built = row(ledger, job(attempt()), server)
    assert built.energy_kwh == pytest.approx(0.001, rel=1e-9)
    assert built.energy_quality == ("fallback",)


def test_a_torn_file_of_the_metric_log_makes_rates_unknown_and_says_which(ledger: Ledger) -> None:
    record = full(ledger)
    tear(max(ledger.home.metrics("j", 1).glob("*.parquet")))
    built = row(ledger, record)
    assert (built.energy_kwh, built.joules_per_sample) == (0.001, None)
    assert built.reasons["joules_per_sample"] == "1 files of the metric log of attempt 1 are torn"


def test_a_prometheus_that_answers_503_half_of_the_time_still_bears_witness(ledger: Ledger) -> None:
    record, server = full(ledger), FakePrometheus(sick=1)
    server.ramp("GPU-a", start_s=START_S - 5, end_s=START_S + 20, watts=3600 / 14)
    built = row(ledger, record, server)
    assert built.energy_disagreement_percent == pytest.approx(0.0, abs=1e-6)
    assert len(server.asked) == 2


def test_negative_and_absent_samples_are_none_and_the_rest_bears_witness(ledger: Ledger) -> None:
    record, server = full(ledger), FakePrometheus()
    watts = 3600 / 14
    kept = [(START_S + s, 1000 + watts * s) for s in range(-5, 20) if s % 3]
    server.add("GPU-a", *kept, (START_S + 3, -1.0), (START_S + 6, "NaN"), (START_S + 7.5, "+Inf"))
    built = row(ledger, record, server)
    assert built.energy_disagreement_percent == pytest.approx(0.0, abs=1e-6)


def test_samples_that_are_all_negative_or_absent_are_a_reason(ledger: Ledger) -> None:
    record, server = full(ledger), FakePrometheus()
    server.add("GPU-a", (START_S - 1, -5.0), (START_S + 15, -1.0))
    built = row(ledger, record, server)
    assert (built.energy_kwh, built.energy_disagreement_percent) == (0.001, None)
    assert "do not reach both ends of attempt 1" in built.reasons["energy_disagreement_percent"]


def test_counts_that_are_negative_or_no_numbers_are_no_rate(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    ledger.log((5, Phase.TRAIN, SAMPLES, -50), (6, Phase.TRAIN, SAMPLES, math.nan))
    built = row(ledger, job(attempt()))
    assert (built.joules_per_sample, built.samples_per_second) == (None, None)
    assert built.reasons["joules_per_sample"] == "attempt 1 logged samples that are no counts in the train phase"


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_parameters_and_caps_that_cannot_be_are_reasons(ledger: Ledger, bad: float) -> None:
    ledger.book(*standard_entries())
    ledger.log((0, None, POWER_CAP_WATTS, bad), (1, Phase.TRAIN, TRAINABLE_PARAMETERS, bad))
    ledger.log((9, Phase.TRAIN, PREFILL_SECONDS, bad), (9, Phase.TRAIN, TOKENS, bad))
    built = row(ledger, job(attempt(), power={"cap_percent": 50}))
    assert (built.power_cap_w, built.trainable_parameters, built.cegi_g) == (None, None, None)
    assert built.reasons["trainable_parameters"] == "attempt 1 logged trainable_parameters that are no count"
    assert built.reasons["power_cap_w"] == "attempt 1 logged a power cap that is none"


def test_an_unknown_region_is_a_reason_and_the_energy_stands(ledger: Ledger) -> None:
    full(ledger)
    built = row(ledger, job(attempt(), accounting={"region": "ATLANTIS"}))
    assert (built.energy_kwh, built.co2e_kg, built.cegi_g) == (0.001, None, None)
    assert built.reasons["co2e_kg"].startswith("unknown region 'ATLANTIS'")


def test_a_job_without_a_baseline_has_no_gain_and_says_why(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_phase(Phase.TRAIN, 3, 13)
    ledger.log((14.0, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.75))
    built = row(ledger, job(attempt()))
    assert (built.score, built.score_base, built.gain_percent, built.cegi_g) == (0.75, None, None, None)
    assert built.cegi_reason == cegi.NO_BASELINE
