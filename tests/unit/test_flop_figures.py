"""Operations that attempts logged become a rate and a share of the accelerator's peak, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.accounting.details import Details
from orchestrator.accounting.flop_figures import peak_flops
from orchestrator.accounting.rows import build_accounts
from orchestrator.lifecycle import AttemptState, JobRecord
from tests.unit.ledger import Ledger, attempt, entry, job
from workers.contract import Method, Phase
from workers.metric_log import FLOPS, FLOPS_PREFIX, RESUMED_FROM_ATTEMPT, SAMPLES, TOKENS
from workers.telemetry.profiles import PROFILES

FIGURES = ("flops", "flops_per_second", "hfu", "mfu")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def details(ledger: Ledger, record: JobRecord) -> Details:
    (built,) = build_accounts(ledger.home, [record], prometheus=None)
    return built.details


def figures(found: Details, phase: str = "train") -> dict[str, Any]:
    phases: Any = found.figures["phases"]
    return {name: phases[phase][name] for name in FIGURES}


def reasons(found: Details, phase: str = "train") -> dict[str, str]:
    return {
        name: found.reasons[f"phases.{phase}.{name}"] for name in FIGURES if f"phases.{phase}.{name}" in found.reasons
    }


def trained(
    ledger: Ledger, *, phase: Phase = Phase.TRAIN, method: Method = Method.COUNTER, devices: int = 1, **by_format: float
) -> None:
    """A phase of ten seconds, 100 samples and so many operations."""
    ledger.book(*(entry(0, 10, 500, phase, method=method, device=f"GPU-{number}") for number in range(devices)))
    ledger.log_phase(phase, 0, 10)
    ledger.log((10.0, phase, SAMPLES, 100))
    if by_format:
        parts = [(11.0, phase, f"{FLOPS_PREFIX}{name}", count) for name, count in by_format.items()]
        ledger.log((11.0, phase, FLOPS, sum(by_format.values())), *parts)


# Not known


@pytest.mark.parametrize(
    ("phase", "spec", "reason"),
    [
        (Phase.TRAIN, {}, "attempt 1 (succeeded) logged no flops of the train phase"),
        (Phase.TRAIN, {"quantization": "4bit"}, "operations of quantised layers are not counted"),
        (
            Phase.TRAIN,
            {"training": {"deepspeed": {"zero_stage": 2}}},
            "operations of a model that DeepSpeed splits are not counted",
        ),
        (
            Phase.INFERENCE,
            {"inference": {"warmup": 0}},
            "operations are counted in the warm-up, and there was none (inference.warmup: 0)",
        ),
        (Phase.BASELINE, {}, "operations of the baseline phase are not counted"),
    ],
)
def test_nothing_logged_is_unknown_for_its_reason(
    ledger: Ledger, phase: Phase, spec: dict[str, Any], reason: str
) -> None:
    trained(ledger, phase=phase)
    found = details(ledger, job(attempt(), **spec))
    assert figures(found, phase) == dict.fromkeys(FIGURES)
    assert reasons(found, phase) == dict.fromkeys(FIGURES, reason)


@pytest.mark.parametrize(
    ("accelerator", "number_format", "reason"),
    [
        ("GT-710", "float32", "no peak of GT-710 in float32 is known here"),
        ("T4", "bfloat16", "no peak of T4 in bfloat16 is known here"),
        (None, "float32", "it ran on no accelerator of a known type"),
    ],
)
def test_an_unknown_peak_leaves_the_rate_and_no_utilisation(
    ledger: Ledger, accelerator: str | None, number_format: str, reason: str
) -> None:
    trained(ledger, **{number_format: 1e12})
    found = details(ledger, job(attempt(accelerator=accelerator)))
    assert figures(found) == {"flops": 1e12, "flops_per_second": 1e11, "hfu": None, "mfu": None}
    assert reasons(found) == {"hfu": reason, "mfu": reason}


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Method.SIMULATED, "the accelerator is simulated; its work was done by the CPU"),
        (Method.REPLAYED, "the accelerator's readings are replayed; its work was done elsewhere"),
    ],
)
def test_an_accelerator_that_did_not_do_the_work_is_not_utilised(ledger: Ledger, method: Method, reason: str) -> None:
    trained(ledger, method=method, float32=1e12)
    found = details(ledger, job(attempt()))
    assert figures(found)["flops_per_second"] == 1e11
    assert reasons(found) == {"hfu": reason, "mfu": reason}


def test_without_energy_of_its_devices_the_time_they_were_held_is_not_known(ledger: Ledger) -> None:
    ledger.log_phase(Phase.TRAIN, 0, 10)
    ledger.log((10.0, Phase.TRAIN, SAMPLES, 100), (11.0, Phase.TRAIN, f"{FLOPS_PREFIX}float32", 1e12))
    found = details(ledger, job(attempt()))
    assert figures(found)["flops"] == 1e12
    reason = "how long it held its devices is not known: no energy was booked to them"
    assert reasons(found) == dict.fromkeys(("flops_per_second", "hfu", "mfu"), reason)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_logged_value_that_is_no_count_is_none(ledger: Ledger, value: float) -> None:
    trained(ledger, float32=value)
    found = details(ledger, job(attempt()))
    assert reasons(found) == dict.fromkeys(FIGURES, "what was logged as operations is no count")


def test_attempts_on_different_accelerator_types_have_no_one_peak(ledger: Ledger) -> None:
    resumed(ledger)
    found = details(ledger, job(attempt(1, AttemptState.FAILED, accelerator="A40"), attempt(2)))
    assert reasons(found) == dict.fromkeys(("hfu", "mfu"), "its attempts ran on different accelerator types")


# Known


def test_utilisation_is_the_time_at_peak_over_the_time_it_took(ledger: Ledger) -> None:
    # 8.1 TFLOP/s in float32: 16.2e12 are two seconds of ten.
    trained(ledger, float32=16.2e12)
    found = figures(details(ledger, job(attempt())))
    assert found == {
        "flops": 16.2e12,
        "flops_per_second": 1.62e12,
        "hfu": pytest.approx(0.2, rel=1e-12),
        "mfu": pytest.approx(0.2, rel=1e-12),
    }


def test_each_format_is_measured_by_its_own_peak(ledger: Ledger) -> None:
    # An A100: 624e12 at 312 TFLOP/s are two seconds, 19.5e12 at 19.5 one.
    trained(ledger, bfloat16=624e12, float32=19.5e12)
    found = figures(details(ledger, job(attempt(accelerator="A100-80GB"))))
    assert found["flops"] == 643.5e12
    assert found["mfu"] == pytest.approx(0.3, rel=1e-12)


def test_several_devices_share_the_work(ledger: Ledger) -> None:
    trained(ledger, devices=4, float32=16.2e12)
    found = figures(details(ledger, job(attempt(), resources={"gpus": 4})))
    assert found["flops_per_second"] == 4.05e11
    assert found["mfu"] == pytest.approx(0.05, rel=1e-12)


def test_a_job_without_gpus_has_a_rate_of_its_host(ledger: Ledger) -> None:
    ledger.log_phase(Phase.TRAIN, 0, 10)
    ledger.log((10.0, Phase.TRAIN, SAMPLES, 100), (11.0, Phase.TRAIN, f"{FLOPS_PREFIX}float32", 1e12))
    found = details(ledger, job(attempt(accelerator=None), resources={"gpus": 0}))
    assert figures(found)["flops_per_second"] == 1e11
    assert reasons(found)["mfu"] == "it ran on no accelerator of a known type"


def test_what_gradient_checkpointing_computes_again_is_the_hardwares_and_not_the_models(ledger: Ledger) -> None:
    trained(ledger, float32=16.2e12)
    found = details(ledger, job(attempt(), training={"gradient_checkpointing": True}))
    assert figures(found)["hfu"] == pytest.approx(0.2, rel=1e-12)
    assert reasons(found) == {"mfu": "gradient checkpointing computes activations again, which hfu counts"}


def test_ranks_that_log_their_own_part_are_added_up(ledger: Ledger) -> None:
    trained(ledger, float32=1e12)
    ledger.log((11.0, Phase.TRAIN, f"{FLOPS_PREFIX}float32", 3e12))
    assert figures(details(ledger, job(attempt())))["flops"] == 4e12


def resumed(ledger: Ledger) -> None:
    """1,000 tokens before the attempt was cut short, and 3,000 more from its checkpoint on, which were counted."""
    ledger.book(entry(0, 5, 500, Phase.TRAIN), entry(10, 15, 500, Phase.TRAIN, number=2))
    ledger.log_phase(Phase.TRAIN, 0, None)
    ledger.log((5.0, Phase.TRAIN, TOKENS, 1000), (5.0, Phase.TRAIN, SAMPLES, 7))
    ledger.log_phase(Phase.TRAIN, 10, 15, number=2)
    ledger.log(
        (10.0, None, RESUMED_FROM_ATTEMPT, 1),
        (15.0, Phase.TRAIN, TOKENS, 3000),
        (15.0, Phase.TRAIN, SAMPLES, 1),
        (15.0, Phase.TRAIN, f"{FLOPS_PREFIX}float32", 12.15e12),
        number=2,
    )


def test_steps_of_an_attempt_that_was_cut_short_count_as_those_of_the_one_that_went_on(ledger: Ledger) -> None:
    resumed(ledger)
    found = figures(details(ledger, job(attempt(1, AttemptState.FAILED), attempt(2))))
    assert found["flops"] == pytest.approx(16.2e12, rel=1e-12)
    assert found["mfu"] == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize("model", PROFILES)
def test_the_peak_in_float32_is_that_of_the_simulated_board(model: str) -> None:
    assert peak_flops(model, "float32") == pytest.approx(PROFILES[model].fp32_tflops * 1e12, rel=1e-12)
