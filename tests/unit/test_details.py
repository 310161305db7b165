"""What a job cost per phase, step, sample and token; warmed up; prompt and answer apart; and how far off it may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.accounting.details import Details
from orchestrator.accounting.phase_figures import NO_STEPS, parity_inferences
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.rows import Account, build_accounts
from orchestrator.lifecycle import JobRecord
from orchestrator.report.sentences import detail_sentences
from tests.unit.fake_prometheus import FakePrometheus
from tests.unit.ledger import START_S, Ledger, at, attempt, entry, job, standard_entries
from workers.contract import Method, Phase
from workers.metric_log import (
    DECODE_SECONDS,
    INFERENCES,
    PREFILL_SECONDS,
    SAMPLES,
    TOKENS,
    TOKENS_DECODE,
    TOKENS_PREFILL,
    MetricLog,
)

FRANCE = {"region": "FRA", "pue": 1.5}
"""56 g/kWh x 1.5 = 84 g per kWh of IT energy."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def account(ledger: Ledger, record: JobRecord, prometheus: PrometheusClient | None = None) -> Account:
    (built,) = build_accounts(ledger.home, [record], prometheus=prometheus)
    return built


def details(ledger: Ledger, record: JobRecord) -> Details:
    return account(ledger, record).details


def figures(found: Details, *path: str) -> Any:
    here: Any = found.figures
    for part in path:
        here = here[part]
    return here


def steps(ledger: Ledger, phase: Phase, ends_s: list[float], *, samples: int = 10, tokens: int | None = None) -> None:
    """Log a step's counts at the end of each."""
    with MetricLog(ledger.home.metrics("j", 1), clock_ns=lambda: at(0)) as log:
        for step, end_s in enumerate(ends_s, start=1):
            log.log(SAMPLES, samples, phase=phase, step=step, time_ns=at(end_s))
            if tokens is not None:
                log.log(TOKENS, tokens, phase=phase, step=step, time_ns=at(end_s))


# Unknown


def test_a_job_that_has_not_run_has_no_phases_and_a_reason_for_each_null(ledger: Ledger) -> None:
    found = details(ledger, job())
    assert (figures(found, "phases"), figures(found, "generation")) == ({}, {})
    assert found.reasons["parity_inferences"] == found.reasons["load.energy_wh"] == "has not run"
    assert found.reasons["user"] == "this ledger did not note who submitted it"
    assert found.reasons["budget"] == "its manifest gives none (budget)"


def nulls(value: object, path: str) -> set[str]:
    if value is None:
        return {path}
    if isinstance(value, dict):
        return {
            found for name, inner in value.items() for found in nulls(inner, f"{path}.{name}" if path else str(name))
        }
    return set()


def test_every_null_has_a_reason_and_only_nulls_do(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    for record in (job(), job(attempt()), job(attempt(), kind="inference", accounting={"region": "ATLANTIS"})):
        found = details(ledger, record)
        assert nulls(dict(found.figures), "") == set(found.reasons)
        assert all(found.reasons.values())


def test_a_phase_without_energy_has_its_time_and_no_joules(ledger: Ledger) -> None:
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [5, 10])
    found = details(ledger, job(attempt()))
    assert figures(found, "phases", "train", "duration_s") == 10.0
    assert figures(found, "phases", "train", "samples") == 20
    assert figures(found, "phases", "train", "joules_per_sample") is None
    assert found.reasons["phases.train.energy_kwh"] == "no energy was booked to the train phase of attempt 1"


def test_too_few_steps_have_no_steady_window(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [5, 10])
    found = details(ledger, job(attempt()))
    assert found.reasons["phases.train.steady"] == NO_STEPS


# Phases and units


def test_a_phase_is_told_per_step_sample_and_token(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [2, 4, 6, 8, 10], samples=10, tokens=50)
    train = figures(details(ledger, job(attempt(), accounting=FRANCE)), "phases", "train")
    assert (train["energy_kwh"], train["power_mean_w"]) == (pytest.approx(1000 / 3.6e6, rel=1e-12), 100.0)
    assert (train["steps"], train["samples"], train["tokens"]) == (5, 50, 250)
    assert (train["joules_per_step"], train["joules_per_sample"], train["joules_per_token"]) == (200.0, 20.0, 4.0)
    assert train["co2e_g"] == pytest.approx(1000 / 3.6e6 * 84, rel=1e-12)
    assert (train["energy_method"], train["complete"]) == ("counter", True)


def test_the_steady_window_leaves_the_warm_up_out(ledger: Ledger) -> None:
    # The first second of ten draws 900 J, each of the others 100 J.
    ledger.book(entry(0, 1, 900, Phase.TRAIN), *(entry(s, s + 1, 100, Phase.TRAIN) for s in range(1, 10)))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [float(s) for s in range(1, 11)], samples=10)
    train = figures(details(ledger, job(attempt())), "phases", "train")
    assert train["joules_per_sample"] == 18.0
    steady = train["steady"]
    assert (steady["steps_dropped"], steady["steps"], steady["samples"]) == (1, 9, 90)
    assert (steady["duration_s"], steady["joules_per_sample"], steady["samples_per_second"]) == (9.0, 10.0, 10.0)
    assert steady["energy_quality"] == []


def test_a_window_that_cuts_an_entry_takes_its_power_for_even_and_says_so(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [1, 4, 7, 10])
    steady = figures(details(ledger, job(attempt())), "phases", "train", "steady")
    assert steady["energy_kwh"] == pytest.approx(900 / 3.6e6, rel=1e-12)
    assert steady["energy_quality"] == ["fallback"]


def test_samples_of_prometheus_tell_when_a_long_entry_was_drawn(ledger: Ledger) -> None:
    # One entry of 1,800 J over ten seconds, of which the first drew 900 J by the counter that Prometheus sampled.
    ledger.book(entry(0, 10, 1800, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    steps(ledger, Phase.TRAIN, [float(s) for s in range(1, 11)], samples=10)
    server = FakePrometheus()
    server.add(
        "GPU-a",
        *((START_S + s, joules) for s, joules in [(-5, 0), (0, 0), *((s, 800 + 100 * s) for s in range(1, 16))]),
    )
    prometheus = PrometheusClient("http://p", transport=server.transport())
    steady = figures(account(ledger, job(attempt()), prometheus).details, "phases", "train", "steady")
    assert (steady["joules_per_sample"], steady["resolution_s"], steady["energy_quality"]) == (10.0, 0.0, [])
    blind = figures(details(ledger, job(attempt())), "phases", "train", "steady")
    assert (blind["joules_per_sample"], blind["resolution_s"], blind["energy_quality"]) == (18.0, 10.0, ["fallback"])


# Generation


def generated(ledger: Ledger) -> Details:
    """Two requests: 0.5 s of prompt at 400 W and 1.5 s of answer at 200 W each."""
    for start_s in (2.0, 4.0):
        ledger.book(
            entry(start_s, start_s + 0.5, 200, Phase.INFERENCE), entry(start_s + 0.5, start_s + 2, 300, Phase.INFERENCE)
        )
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.INFERENCE, 2, 6)
    for start_s in (2.0, 4.0):
        ledger.log(
            (start_s + 0.5, Phase.INFERENCE, PREFILL_SECONDS, 0.5),
            (start_s + 0.5, Phase.INFERENCE, TOKENS_PREFILL, 100),
            (start_s + 2.0, Phase.INFERENCE, DECODE_SECONDS, 1.5),
            (start_s + 2.0, Phase.INFERENCE, TOKENS_DECODE, 30),
            (start_s + 2.0, Phase.INFERENCE, TOKENS, 130),
            (start_s + 2.0, Phase.INFERENCE, INFERENCES, 1),
        )
    return details(ledger, job(attempt(), kind="inference", accounting=FRANCE))


def test_prompt_and_answer_of_a_generation_are_told_apart(ledger: Ledger) -> None:
    found = generated(ledger)
    prefill, decode = figures(found, "generation", "prefill"), figures(found, "generation", "decode")
    assert (prefill["duration_s"], prefill["tokens"], prefill["joules_per_token"]) == (1.0, 200, 2.0)
    assert (decode["duration_s"], decode["tokens"], decode["joules_per_token"]) == (3.0, 60, 10.0)
    assert (prefill["power_mean_w"], decode["power_mean_w"]) == (400.0, 200.0)
    whole = figures(found, "phases", "inference")
    assert prefill["energy_kwh"] + decode["energy_kwh"] == pytest.approx(whole["energy_kwh"], rel=1e-12)
    assert (prefill["energy_quality"], decode["energy_quality"]) == ([], [])


def test_each_repeat_of_the_inferences_has_its_own_figures_and_their_spread_is_told(ledger: Ledger) -> None:
    ledger.book(entry(2, 4, 500, Phase.INFERENCE), entry(4, 6, 700, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, 2, 6)
    ledger.log((4.0, Phase.INFERENCE, INFERENCES, 100), (6.0, Phase.INFERENCE, INFERENCES, 100))
    record = job(attempt(), kind="inference", inference={"requests": 100, "repeats": 2}, accounting=FRANCE)
    repeats = figures(details(ledger, record), "repeats")
    assert [repeats[name]["joules_per_inference"] for name in ("1", "2")] == [5.0, 7.0]
    assert [repeats[name]["duration_s"] for name in ("1", "2")] == [2.0, 2.0]
    assert repeats["joules_per_inference_std"] == pytest.approx(2**0.5, rel=1e-12)
    # 1,200 J over all 200 inferences.
    row = account(ledger, record).row
    assert row.wh_per_1000_inferences == pytest.approx(1000 * 6 / 3600, rel=1e-12)


def test_one_repeat_has_no_spread(ledger: Ledger) -> None:
    ledger.book(entry(2, 4, 500, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, 2, 4)
    ledger.log((4.0, Phase.INFERENCE, INFERENCES, 100))
    found = details(ledger, job(attempt(), kind="inference"))
    assert figures(found, "repeats", "1", "joules_per_inference") == 5.0
    assert found.reasons["repeats.joules_per_inference_std"].startswith("the energy of two repeats or more")


def test_a_generation_that_counted_no_tokens_has_its_energy_and_no_rate(ledger: Ledger) -> None:
    ledger.book(entry(2, 4, 500, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, 2, 4)
    ledger.log((4, Phase.INFERENCE, DECODE_SECONDS, 1.0))
    found = details(ledger, job(attempt(), kind="inference"))
    assert figures(found, "generation", "decode", "energy_kwh") == pytest.approx(250 / 3.6e6, rel=1e-12)
    assert found.reasons["generation.decode.joules_per_token"] == "no tokens were counted"


def test_ranks_that_generate_at_once_do_not_count_the_time_twice(ledger: Ledger) -> None:
    ledger.book(entry(2, 4, 500, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, 2, 4)
    ledger.log((4, Phase.INFERENCE, DECODE_SECONDS, 2.0), (4, Phase.INFERENCE, DECODE_SECONDS, 1.5))
    decode = figures(details(ledger, job(attempt(), kind="inference")), "generation", "decode")
    assert (decode["duration_s"], decode["energy_kwh"]) == (2.0, pytest.approx(500 / 3.6e6, rel=1e-12))


def test_loading_is_told_apart_from_what_inferences_cost(ledger: Ledger) -> None:
    found = account(ledger, job(attempt(), kind="inference", accounting=FRANCE))
    assert found.row.wh_per_1000_inferences is None
    generated(ledger)
    found = account(ledger, job(attempt(), kind="inference", accounting=FRANCE))
    assert found.details.figures["load"] == {
        "energy_wh": pytest.approx(0.25, rel=1e-12),
        "co2e_g": pytest.approx(0.021, rel=1e-12),
    }
    # 1,000 J over 2 inferences.
    assert found.row.wh_per_1000_inferences == pytest.approx(1000 * 500 / 3600, rel=1e-12)


def test_parity_is_training_over_an_inference(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    assert details(ledger, job(attempt())).reasons["parity_inferences"] == (
        "attempt 1 counted no samples in the evaluate phase"
    )
    ledger.log((14.0, Phase.EVALUATE, SAMPLES, 90))
    # 1,800 J of training, 450 J over 90 samples of evaluation.
    assert figures(details(ledger, job(attempt())), "parity_inferences") == pytest.approx(360, rel=1e-12)
    assert parity_inferences(1.0, 0.0) is None


def test_parity_is_by_the_inferences_a_fine_tune_measured_where_it_did(ledger: Ledger) -> None:
    measuring = job(attempt(), inference={"requests": 50})
    ledger.book(*standard_entries(), entry(15, 16, 200, Phase.INFERENCE))
    ledger.log_standard()
    ledger.log((14.0, Phase.EVALUATE, SAMPLES, 90))
    ledger.log_phase(Phase.INFERENCE, 15, 16)
    assert details(ledger, measuring).reasons["parity_inferences"] == (
        "attempt 1 counted no inferences in the inference phase"
    )
    ledger.log((16.0, Phase.INFERENCE, INFERENCES, 50))
    # 1,800 J of training, 200 J over 50 inferences.
    assert figures(details(ledger, measuring), "parity_inferences") == pytest.approx(450, rel=1e-12)


def test_what_only_the_manifest_says_is_told_apart_from_what_a_meter_counted(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    assert figures(details(ledger, job(attempt())), "metering", "assumed_kwh") == 0
    assuming = account(ledger, job(attempt(), accounting={"cpu_watts": 90, "dram_watts": 45}))
    # 14 s at 135 W.
    assert figures(assuming.details, "metering", "assumed_kwh") == 0.000525
    assert "0.525 Wh (modelled) are watts of its manifest, since no meter counted them" in detail_sentences(
        assuming.row, assuming.details
    )
    ledger.book(entry(0, 14, 1800, Phase.TRAIN, device="package-0", kind="cpu"))
    assuming = account(ledger, job(attempt(), accounting={"cpu_watts": 90, "dram_watts": 45}))
    assert figures(assuming.details, "metering", "assumed_kwh") == 0.000175


# How far off


def test_without_a_second_meter_there_is_no_interval_and_it_says_why(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    found = details(ledger, job(attempt()))
    interval = figures(found, "interval")
    assert (interval["co2e_kg"], interval["cegi_g"]) == (None, None)
    assert found.reasons["interval.co2e_kg"] == "how far off it may be is not known by any of its parts"
    assert [(part["part"], part["reason"]) for part in interval["parts"]] == [
        ("metering", "no second meter: Prometheus gave no figure, and no counter has power readings beside it"),
        ("carbon intensity", "a yearly average has no range; the hours of it are not known"),
    ]


def witnessed(percent: float) -> list[Any]:
    return [replace(one, witness_mj=round(one.energy_mj * (1 + percent / 100))) for one in standard_entries()]


def test_power_readings_beside_the_counter_carry_their_disagreement_into_co2e_and_cegi(ledger: Ledger) -> None:
    ledger.book(*witnessed(-2.0))
    ledger.log_standard()
    found = account(ledger, job(attempt(), accounting=FRANCE))
    assert figures(found.details, "metering", "power_disagreement_percent") == pytest.approx(-2.0, rel=1e-9)
    interval = figures(found.details, "interval")
    # 0.084 g; the log's figure is the top of the interval, and what power readings make of it the bottom.
    assert interval["co2e_kg"] == {
        "low": pytest.approx(0.000084 * 0.98, rel=1e-9),
        "high": pytest.approx(0.000084, rel=1e-9),
    }
    assert found.row.cegi_g is not None
    assert interval["cegi_g"]["low"] == pytest.approx(found.row.cegi_g * 0.98, rel=1e-9)
    assert interval["parts"][0]["source"] == "power readings -2 % of GPU energy"


def test_all_second_meters_are_in_the_interval_and_only_gpus_have_them(ledger: Ledger) -> None:
    ledger.book(*witnessed(-2.0), entry(0, 14, 3600, Phase.TRAIN, device="package-0", kind="cpu"))
    ledger.log_standard()
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=START_S - 5, end_s=START_S + 20, watts=270)
    prometheus = PrometheusClient("http://p", transport=server.transport())
    metering = account(ledger, job(attempt()), prometheus).details.figures["interval"]["parts"][0]  # type: ignore[index]
    # Prometheus says 3,780 J of 3,600 J, power readings 3,528 J; the CPU's 3,600 J are half of it all.
    assert (metering["low_percent"], metering["high_percent"]) == (
        pytest.approx(-1.0, rel=1e-9),
        pytest.approx(2.5, rel=1e-9),
    )


def test_cutting_an_entry_shares_its_second_opinion_out(ledger: Ledger) -> None:
    ledger.book(replace(entry(0, 14, 1400), witness_mj=1_470_000))
    ledger.log_standard()
    found = account(ledger, job(attempt()))
    assert figures(found.details, "metering", "power_disagreement_percent") == pytest.approx(5.0, rel=1e-9)


def test_a_job_over_its_budget_is_told(ledger: Ledger) -> None:
    ledger.book(*standard_entries(method=Method.SIMULATED))
    found = account(ledger, job(attempt(), budget={"energy_kwh": 0.0004, "co2e_kg": 5.0}))
    assert found.notes == ("j used 0.001 kWh of its budget of 0.0004 kWh",)
    budget = figures(found.details, "budget")
    assert budget["energy_kwh"]["left"] == pytest.approx(-0.0006, rel=1e-9)
    assert budget["energy_kwh"]["predicted"] is None
    assert found.details.reasons["budget.energy_kwh.predicted"] == "predictions are not computed by this version"


def test_a_job_whose_energy_is_not_known_is_not_within_its_budget(ledger: Ledger) -> None:
    found = account(ledger, job(attempt(), budget={"energy_kwh": 1.0}))
    assert figures(found.details, "budget", "energy_kwh", "spent") is None
    assert found.details.reasons["budget.energy_kwh.left"] == "the energy log has no entries of this job"
