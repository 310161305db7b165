"""Report rows from real logs: hand-worked figures, and a reason for everything that is not known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import cegi
from orchestrator.accounting.prometheus import PrometheusClient
from orchestrator.accounting.row import FIELDS, ReportRow
from orchestrator.accounting.rows import adapter_label, build_accounts, build_rows
from orchestrator.accounting.unknown import Unknown, row_of
from orchestrator.lifecycle import AttemptState, JobRecord, JobState
from tests.unit.fake_prometheus import FakePrometheus
from tests.unit.ledger import STANDARD, START_S, Ledger, attempt, entry, job, standard_entries
from workers.contract import Adapter, Method, Phase, Quality
from workers.environment import UNCONFIRMED
from workers.metric_log import INFERENCES, POWER_CAP_WATTS, SAMPLES, SCORE_PREFIX, TOKENS, TRAINABLE_PARAMETERS
from workers.tasks import TASKS

FRANCE = {"region": "FRA", "pue": 1.5}
"""56 g/kWh x 1.5 = 84 g per kWh of IT energy."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def row(ledger: Ledger, record: JobRecord, prometheus: PrometheusClient | None = None) -> ReportRow:
    (built,) = build_rows(ledger.home, [record], prometheus=prometheus)
    return built


def standard(ledger: Ledger) -> ReportRow:
    ledger.book(*standard_entries())
    ledger.log_standard()
    return row(ledger, job(attempt(), accounting=FRANCE, adapter={"method": "lora", "rank": 4}))


# Nothing known


def test_a_queued_job_is_null_because_it_has_not_run(ledger: Ledger) -> None:
    queued = row(ledger, job())
    assert (queued.state, queued.attempts) == ("queued", 0)
    not_run = {name for name, reason in queued.reasons.items() if reason == "has not run"}
    assert not_run == {
        "accelerator",
        "trainable_parameters",
        "total_parameters",
        "duration_s",
        "energy_kwh",
        "energy_gpu_kwh",
        "energy_cpu_kwh",
        "energy_dram_kwh",
        "energy_by_phase_kwh",
        "energy_wasted_kwh",
        "energy_method",
        "energy_quality",
        "energy_disagreement_percent",
        "co2e_kg",
        "embodied_kg",
        "score_base",
        "score",
        "gain_percent",
        "cegi_g",
        "joules_per_sample",
        "joules_per_token",
        "samples_per_second",
        "power_mean_w",
    }
    assert queued.cegi_reason == "has not run"


def test_a_job_without_logs_is_unknown_not_zero(ledger: Ledger) -> None:
    bare = row(ledger, job(attempt()))
    assert bare.energy_kwh is None
    assert bare.reasons["energy_kwh"] == "the energy log has no entries of this job"
    assert bare.reasons["co2e_kg"] == "the energy log has no entries of this job"
    assert bare.reasons["duration_s"] == "attempt 1 left no metric log"
    assert bare.reasons["score"] == "attempt 1 left no metric log"
    assert bare.cegi_reason == cegi.NO_BASELINE
    assert bare.energy_wasted_kwh == 0.0


def test_a_torn_energy_file_is_told_where_it_may_hold_the_jobs_energy(ledger: Ledger) -> None:
    torn = ledger.home.energy("node-1") / "date=2024-01-01" / "torn.parquet"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"PAR1")
    assert row(ledger, job(attempt())).reasons["energy_kwh"] == (
        "the energy log has no entries of this job; a file of those days cannot be read"
    )
    assert standard(ledger).energy_quality == ("gap",)


@pytest.mark.parametrize("where", ["node=node-1/date=2024-01-02", "node=node-2/date=2024-01-01"])
def test_a_torn_energy_file_of_another_day_or_node_is_no_concern_of_the_job(ledger: Ledger, where: str) -> None:
    torn = ledger.home.energy() / where / "torn.parquet"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"PAR1")
    assert standard(ledger).energy_quality == ()


def test_a_torn_metric_file_makes_what_was_counted_unknown(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    (ledger.home.metrics("j", 1) / "part-0-999999.parquet").write_bytes(b"PAR1")
    built = row(ledger, job(attempt()))
    assert (built.joules_per_sample, built.samples_per_second) == (None, None)
    assert built.reasons["joules_per_sample"] == "1 files of the metric log of attempt 1 are torn"
    assert built.score == 0.75


def test_a_region_that_is_no_longer_known_makes_carbon_unknown_and_nothing_else(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), accounting={"region": "ATLANTIS"}))
    assert built.energy_kwh == 0.001
    assert (built.co2e_kg, built.carbon_intensity_g_per_kwh, built.carbon_source) == (None, None, None)
    assert built.reasons["co2e_kg"].startswith("unknown region 'ATLANTIS'. Known: ISO 3166 codes")
    assert built.pue == 1.56
    assert built.cegi_reason is not None
    assert built.cegi_reason.startswith(f"{cegi.NO_CARBON}: unknown region 'ATLANTIS'")


def test_names_that_left_the_registries_make_their_fields_unknown(ledger: Ledger) -> None:
    built = row(ledger, job(attempt(), task="gone", model="gone/too"))
    assert built.reasons["architecture"] == "model gone/too is not in the registry"
    assert built.reasons["metric"] == f"unknown task 'gone'. Known: {', '.join(sorted(TASKS))}"


# The standard job


def test_energy_is_the_sum_of_the_entries(ledger: Ledger) -> None:
    built = standard(ledger)
    assert built.energy_kwh == 0.001
    assert built.energy_gpu_kwh == 0.001
    assert built.energy_by_phase_kwh == {"load": 0.00025, "baseline": 0.000125, "train": 0.0005, "evaluate": 0.000125}
    assert built.energy_wasted_kwh == 0.0
    assert (built.energy_method, built.energy_quality) == ("counter", ())
    assert built.power_mean_w == pytest.approx(3600 / 14, rel=1e-12)


def test_unmetered_kinds_are_null_with_their_reason(ledger: Ledger) -> None:
    built = standard(ledger)
    assert (built.energy_cpu_kwh, built.energy_dram_kwh) == (None, None)
    assert built.reasons["energy_cpu_kwh"] == "no CPU meter on this node: its energy is not counted"
    assert built.reasons["energy_dram_kwh"] == "no DRAM meter on this node: its energy is not counted"


def test_what_this_version_does_not_compute_says_so(ledger: Ledger) -> None:
    built = standard(ledger)
    assert built.predicted_energy_kwh is None
    assert built.reasons["predicted_energy_kwh"] == "not computed by this version"


def test_carbon_includes_pue_and_names_every_source(ledger: Ledger) -> None:
    built = standard(ledger)
    assert (built.pue, built.carbon_intensity_g_per_kwh) == (1.5, 56.0)
    assert built.carbon_source == "FRA: Our World in Data / Ember (CC BY 4.0), 2023; PUE: as given"
    assert built.co2e_kg == pytest.approx(0.000084, rel=1e-12)


def test_defaults_of_carbon_are_named_as_defaults(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt()))
    assert built.co2e_kg == pytest.approx(0.001 * 1.56 * 475 / 1000, rel=1e-12)
    assert built.carbon_source == (
        "WORLD: world average (default, no region was given): IEA Global Energy & CO2 Status Report 2019, 2018; "
        "PUE: survey average (default, none was given): Uptime Institute Global Data Center Survey 2024"
    )


def test_cegi_is_the_train_phases_carbon_per_percent_and_million(ledger: Ledger) -> None:
    built = standard(ledger)
    assert (built.metric, built.score_base, built.score, built.gain_percent) == ("accuracy", 0.5, 0.75, 50.0)
    assert (built.trainable_parameters, built.total_parameters) == (20_000, 100_000)
    # 0.0005 kWh x 84 g = 0.042 g, over 50 % and 0.02 million.
    assert built.cegi_g == pytest.approx(0.042, rel=1e-12)
    assert built.cegi_reason is None


def test_cegi_of_all_phases_counts_all_the_carbon(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), accounting=FRANCE | {"cegi_scope": "all", "cegi_gain": "points"}))
    # 0.001 kWh x 84 g = 0.084 g, over 25 points and 0.02 million.
    assert built.gain_percent == 25.0
    assert built.cegi_g == pytest.approx(0.168, rel=1e-12)


def test_rates_are_of_the_train_phase(ledger: Ledger) -> None:
    built = standard(ledger)
    assert built.duration_s == 14.0
    assert built.joules_per_sample == 1.8
    assert built.samples_per_second == 100.0
    assert built.reasons["joules_per_token"] == "the task has no tokens"
    assert built.reasons["wh_per_1000_inferences"] == (
        "it measured no inference: its manifest has no section inference"
    )


def test_tokens_are_counted_where_the_task_has_them(ledger: Ledger) -> None:
    ledger.log((8.0, Phase.TRAIN, TOKENS, 9_000))
    assert standard(ledger).joules_per_token == 0.2


def test_the_identity_is_the_specs(ledger: Ledger) -> None:
    built = standard(ledger)
    identity = [built.job_id, built.name, built.kind, built.task, built.model, built.architecture, built.accelerator]
    assert identity == ["j", "study", "finetune", "digits", "tiny/vit", "vit", "T4"]
    setup = [built.gpu_count, built.quantization, built.adapter, built.seed, built.state, built.attempts]
    assert setup == [1, "none", "lora-r4", 0, "succeeded", 1]


@pytest.mark.parametrize(
    ("adapter", "label"),
    [(Adapter(), "none"), (Adapter(method="full"), "full"), (Adapter(method="lora", rank=16), "lora-r16")],
)
def test_an_adapter_is_shown_with_its_rank(adapter: Adapter, label: str) -> None:
    assert adapter_label(adapter) == label


# Scores


def test_without_a_baseline_there_is_a_score_but_no_gain(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log((14.0, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.75))
    built = row(ledger, job(attempt()))
    assert (built.score_base, built.score, built.gain_percent, built.cegi_g) == (None, 0.75, None, None)
    assert built.reasons["score_base"] == "attempt 1 (succeeded) logged no accuracy in the baseline phase"
    assert built.reasons["gain_percent"] == built.cegi_reason == built.reasons["cegi_g"] == cegi.NO_BASELINE


def test_a_score_that_is_no_number_is_null(ledger: Ledger) -> None:
    ledger.log_standard()
    ledger.log((14.5, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", math.nan))
    built = row(ledger, job(attempt()))
    assert (built.score, built.reasons["score"], built.cegi_reason) == (None, cegi.NOT_A_NUMBER, cegi.NOT_A_NUMBER)


def test_a_score_that_fell_has_no_cegi(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    ledger.log((14.5, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.25))
    built = row(ledger, job(attempt()))
    assert (built.gain_percent, built.cegi_g, built.cegi_reason) == (-50.0, None, cegi.no_gain(-50.0))


def test_the_metric_that_was_asked_for_is_the_ledgers(ledger: Ledger) -> None:
    ledger.log(
        (3.0, Phase.BASELINE, f"{SCORE_PREFIX}f1_macro", 0.25), (14.0, Phase.EVALUATE, f"{SCORE_PREFIX}f1_macro", 0.5)
    )
    ledger.log_standard()
    built = row(ledger, job(attempt(), evaluation={"metric": "f1_macro"}))
    assert (built.metric, built.score_base, built.score, built.gain_percent) == ("f1_macro", 0.25, 0.5, 100.0)


def test_energy_lost_from_the_train_phase_leaves_cegi_unknown(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    ledger.log_standard()
    assert row(ledger, job(attempt())).cegi_reason == (
        f"{cegi.NO_CARBON}: no energy was booked to the train phase of attempt 1"
    )


# Attempts


def test_a_failed_attempts_energy_counts_and_is_told_apart(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 4, 900, Phase.TRAIN))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.TRAIN, 2, None)
    ledger.book(*standard_entries(number=2))
    ledger.log_standard(number=2)
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2), accounting=FRANCE))
    assert built.energy_kwh == 0.0015
    assert built.energy_wasted_kwh == 0.0005
    assert built.energy_by_phase_kwh == {"load": 0.00025, "baseline": 0.000125, "train": 0.0005, "evaluate": 0.000125}
    assert built.co2e_kg == pytest.approx(0.000126, rel=1e-12)
    assert built.cegi_g == pytest.approx(0.042, rel=1e-12)
    assert built.duration_s == 14.0
    # 5,400 J over 4 s and 14 s.
    assert built.power_mean_w == 300.0


def test_a_job_that_failed_wasted_all_its_energy_and_its_cut_phase_has_no_rate(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 4, 900, Phase.TRAIN))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.TRAIN, 2, None)
    ledger.log((3.5, Phase.TRAIN, SAMPLES, 10))
    built = row(ledger, job(attempt(1, AttemptState.FAILED)))
    assert (built.state, built.energy_kwh, built.energy_wasted_kwh) == ("failed", 0.0005, 0.0005)
    assert built.duration_s == 3.5
    assert built.joules_per_sample is None
    assert built.reasons["joules_per_sample"] == "the train phase of attempt 1 did not end"
    assert built.reasons["score"] == "attempt 1 (failed) logged no accuracy in the evaluate phase"


def test_a_failed_attempt_without_entries_is_not_taken_for_free(ledger: Ledger) -> None:
    ledger.book(*standard_entries(number=2))
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2)))
    assert built.energy_wasted_kwh is None
    assert built.reasons["energy_wasted_kwh"] == "the energy log has no entries of wasted attempt 1"
    assert (built.energy_kwh, built.energy_quality) == (0.001, ("gap",))


def test_a_running_job_shows_what_it_drew_so_far(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.TRAIN, 2, None)
    built = row(ledger, job(attempt(1, AttemptState.RUNNING)))
    assert (built.energy_kwh, built.energy_wasted_kwh, built.energy_quality) == (0.00025, 0.0, ())
    assert built.reasons["score"] == "attempt 1 (running) logged no accuracy in the evaluate phase"


def test_a_retried_job_that_waits_again_keeps_its_bill(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    built = row(ledger, job(attempt(1, AttemptState.FAILED), state=JobState.QUEUED))
    assert (built.state, built.attempts, built.energy_kwh, built.energy_wasted_kwh) == ("queued", 1, 0.00025, 0.00025)


def test_energy_booked_past_midnight_counts_even_where_the_heads_clock_is_behind(ledger: Ledger) -> None:
    ledger.book(
        entry(12 * 3600 - 5, 12 * 3600 + 5, 360, Phase.TRAIN), entry(12 * 3600 + 5, 12 * 3600 + 9, 360, Phase.TRAIN)
    )
    assert row(ledger, job(attempt())).energy_kwh == 0.0002


# Provenance


def test_a_total_is_as_sure_as_its_weakest_part_and_carries_every_flag(ledger: Ledger) -> None:
    ledger.book(
        entry(0, 1, 1, Phase.LOAD, quality=frozenset({Quality.RESET})),
        entry(1, 2, 1, Phase.TRAIN, method=Method.MODELLED, quality=frozenset({Quality.GAP, Quality.STALE})),
        entry(2, 3, 1, Phase.EVALUATE, method=Method.INTEGRATED),
    )
    built = row(ledger, job(attempt()))
    assert (built.energy_method, built.energy_quality) == ("modelled", ("gap", "reset", "stale"))


def test_a_simulated_entry_makes_the_figure_simulated(ledger: Ledger) -> None:
    ledger.book(entry(0, 1, 1, Phase.LOAD), entry(1, 2, 1, Phase.TRAIN, method=Method.SIMULATED))
    assert row(ledger, job(attempt())).energy_method == "simulated"


def test_kinds_of_devices_are_summed_apart_and_together(ledger: Ledger) -> None:
    ledger.book(
        entry(0, 10, 3600, Phase.TRAIN),
        entry(0, 10, 1800, Phase.TRAIN, device="package-0", kind="cpu"),
        entry(0, 10, 900, Phase.TRAIN, device="dram-0", kind="dram"),
    )
    built = row(ledger, job(attempt()))
    parts = (built.energy_kwh, built.energy_gpu_kwh, built.energy_cpu_kwh, built.energy_dram_kwh)
    assert parts == (0.00175, 0.001, 0.0005, 0.00025)
    assert built.power_mean_w == 630.0


def test_the_reason_for_an_unmetered_kind_is_what_its_node_said(ledger: Ledger) -> None:
    ledger.say_unmetered(cpu="the CPU 'X' is not in the table of rated powers", dram="")
    built = standard(ledger)
    assert built.reasons["energy_cpu_kwh"] == "the CPU 'X' is not in the table of rated powers"
    assert built.reasons["energy_dram_kwh"] == "no DRAM meter on this node: its energy is not counted"


@pytest.mark.parametrize("record", ["", "{", "[]", '{"unmetered": 5}', '{"spec": {}}'])
def test_a_record_of_the_environment_that_tells_nothing_is_no_error(ledger: Ledger, record: str) -> None:
    ledger.write_environment(record)
    assert standard(ledger).reasons["energy_cpu_kwh"] == "no CPU meter on this node: its energy is not counted"


def test_last_joules_that_were_not_confirmed_are_a_gap_and_a_note(ledger: Ledger) -> None:
    ledger.write_environment(json.dumps({UNCONFIRMED: "no agent answers at /run/agent.sock."}))
    ledger.log_standard()
    ledger.book(*standard_entries())
    (account,) = build_accounts(ledger.home, [job(attempt())])
    assert (account.row.energy_kwh, account.row.energy_quality) == (0.001, ("gap",))
    assert account.notes == (
        "the last joules of attempt 1 of j were not confirmed when it ended: no agent answers at /run/agent.sock",
    )
    ledger.write_environment(json.dumps({UNCONFIRMED: None}))
    assert row(ledger, job(attempt())).energy_quality == ()


def test_a_job_that_runs_is_not_said_to_have_no_baseline(ledger: Ledger) -> None:
    built = row(ledger, job(attempt(state=AttemptState.RUNNING)))
    assert built.cegi_reason == "attempt 1 still runs and has not taken both scores"
    assert row(ledger, job(attempt())).cegi_reason == cegi.NO_BASELINE


def test_parameters_that_were_not_counted_are_not_taken_for_none(ledger: Ledger) -> None:
    ledger.log_phase(Phase.TRAIN, 3, 13)
    ledger.log(
        (3.0, Phase.BASELINE, f"{SCORE_PREFIX}accuracy", 0.5), (14.0, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.75)
    )
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt()))
    assert built.cegi_reason == (
        "how many parameters were trained is not known: attempt 1 (succeeded) logged no trainable_parameters"
    )


def test_gpus_that_nobody_metered_leave_the_total_unknown_whatever_the_cpu_drew(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1800, Phase.TRAIN, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt()))
    assert (built.energy_kwh, built.energy_cpu_kwh, built.co2e_kg) == (None, 0.0005, None)
    assert built.reasons["energy_kwh"] == "the energy log has no entries of this job's GPUs"
    assert built.reasons["energy_gpu_kwh"] == "no GPU of this job was metered"


def test_a_job_without_gpus_costs_what_its_cpu_drew(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1800, Phase.TRAIN, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt(accelerator=None), resources={"gpus": 0}))
    assert (built.energy_kwh, built.energy_cpu_kwh, built.energy_quality) == (0.0005, 0.0005, ())


def test_a_failed_attempt_of_which_only_the_cpu_was_metered_is_not_taken_for_cheap(ledger: Ledger) -> None:
    ledger.book(entry(0, 1, 1800, Phase.LOAD, device="package-0", kind="cpu"))
    ledger.book(*standard_entries(number=2), entry(0, 14, 1800, Phase.TRAIN, number=2, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2)))
    assert (built.energy_wasted_kwh, built.energy_quality) == (None, ("gap",))


def test_a_kind_that_one_attempt_lacks_is_a_gap(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.book(*standard_entries(number=2), entry(0, 14, 1800, Phase.TRAIN, number=2, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2)))
    assert (built.energy_kwh, built.energy_cpu_kwh, built.energy_quality) == (0.0025, 0.0005, ("gap",))


@pytest.mark.parametrize(
    ("gpu", "cpu", "total"),
    [
        (Method.COUNTER, Method.COUNTER, "counter"),
        (Method.COUNTER, Method.MODELLED, "modelled"),
        (Method.SIMULATED, Method.COUNTER, "simulated"),
        (Method.SIMULATED, Method.MODELLED, "simulated"),
    ],
)
def test_gpu_and_cpu_together_are_as_sure_as_the_weaker(ledger: Ledger, gpu: Method, cpu: Method, total: str) -> None:
    shared = frozenset({Quality.SHARED})
    ledger.book(
        *standard_entries(method=gpu),
        entry(3, 13, 1800, Phase.TRAIN, device="package-0", kind="cpu", method=cpu, quality=shared),
    )
    built = row(ledger, job(attempt()))
    assert (built.energy_kwh, built.energy_method, built.energy_quality) == (0.0015, total, ("shared",))


def test_the_witness_is_asked_about_gpus_alone(ledger: Ledger) -> None:
    shared = frozenset({Quality.SHARED})
    ledger.book(
        *standard_entries(),
        entry(3, 13, 1800, Phase.TRAIN, device="package-0", kind="cpu", quality=shared),
        entry(3, 13, 900, Phase.TRAIN, device="dram-0", kind="dram", quality=shared),
    )
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=START_S - 5, end_s=START_S + 20, watts=270)
    built = row(ledger, job(attempt()), PrometheusClient("http://p", transport=server.transport()))
    # 3,780 J against the 3,600 J of the GPU.
    assert built.energy_disagreement_percent == pytest.approx(5.0, rel=1e-9)


# CPU watts the manifest gives


def test_watts_of_the_manifest_count_over_the_time_the_attempt_held_its_gpus(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), accounting={"cpu_watts": 90}))
    # 14 s at 90 W = 1,260 J beside the GPU's 3,600 J; 900 J of them in the 10 s of training.
    assert built.energy_cpu_kwh == 0.00035
    assert built.energy_kwh == 0.00135
    assert built.energy_by_phase_kwh is not None
    assert built.energy_by_phase_kwh["train"] == pytest.approx((1800 + 900) / 3.6e6, rel=1e-12)
    assert (built.energy_method, built.energy_quality) == ("modelled", ("fallback",))
    assert "energy_cpu_kwh" not in built.reasons


def test_watts_of_the_memory_count_like_those_of_the_cpu(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), accounting={"dram_watts": 90}))
    assert (built.energy_dram_kwh, built.energy_cpu_kwh, built.energy_kwh) == (0.00035, None, 0.00135)
    assert (built.energy_method, built.energy_quality) == ("modelled", ("fallback",))
    both = row(ledger, job(attempt(), accounting={"dram_watts": 90, "cpu_watts": 180}))
    assert (both.energy_dram_kwh, both.energy_cpu_kwh, both.energy_kwh) == (0.00035, 0.0007, 0.00205)


def test_watts_of_the_memory_stand_beside_a_meter_of_the_cpu_and_never_replace_one_of_the_memory(
    ledger: Ledger,
) -> None:
    ledger.book(*standard_entries(), entry(0, 14, 1800, Phase.TRAIN, device="package-0", kind="cpu"))
    watts = {"cpu_watts": 180, "dram_watts": 90}
    built = row(ledger, job(attempt(), accounting=watts))
    assert (built.energy_cpu_kwh, built.energy_dram_kwh) == (0.0005, 0.00035)
    ledger.book(entry(0, 14, 360, Phase.TRAIN, device="dram-0", kind="dram"))
    built = row(ledger, job(attempt(), accounting=watts))
    assert (built.energy_dram_kwh, built.energy_method) == (0.0001, "counter")


def test_watts_of_the_manifest_never_replace_a_meter(ledger: Ledger) -> None:
    ledger.book(*standard_entries(), entry(0, 14, 1800, Phase.TRAIN, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt(), accounting={"cpu_watts": 90}))
    assert (built.energy_cpu_kwh, built.energy_method) == (0.0005, "counter")


def test_watts_of_the_manifest_fill_in_for_the_attempts_that_were_not_metered(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD))
    ledger.book(*standard_entries(number=2), entry(0, 14, 1800, Phase.TRAIN, number=2, device="package-0", kind="cpu"))
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2), accounting={"cpu_watts": 90}))
    # 2 s at 90 W and what the meter said.
    assert built.energy_cpu_kwh == pytest.approx((180 + 1800) / 3.6e6, rel=1e-12)
    assert built.energy_wasted_kwh == pytest.approx((900 + 180) / 3.6e6, rel=1e-12)


def test_a_job_without_gpus_and_meters_costs_its_watts_while_it_ran(ledger: Ledger) -> None:
    ledger.log_standard()
    wanted = {"accounting": {"cpu_watts": 90}, "resources": {"gpus": 0}}
    built = row(ledger, job(attempt(accelerator=None), **wanted))
    # From -1 s to 15 s.
    assert (built.energy_kwh, built.energy_method) == (0.0004, "modelled")
    assert built.joules_per_sample == pytest.approx(0.9, rel=1e-12)


def test_watts_alone_are_no_energy_of_a_job_whose_gpus_nobody_metered(ledger: Ledger) -> None:
    built = row(ledger, job(attempt(), accounting={"cpu_watts": 90}))
    assert (built.energy_kwh, built.energy_cpu_kwh) == (None, 0.0004)
    assert built.reasons["energy_kwh"] == "the energy log has no entries of this job's GPUs"


def test_a_running_attempt_that_nobody_metered_has_no_time_to_count_watts_over(ledger: Ledger) -> None:
    built = row(ledger, job(attempt(1, AttemptState.RUNNING), accounting={"cpu_watts": 90}))
    assert (built.energy_kwh, built.energy_cpu_kwh) == (None, None)
    assert built.reasons["energy_cpu_kwh"] == "the energy log has no entries of this job"


def test_two_gpus_held_together_draw_their_power_together(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN), entry(0, 10, 2000, Phase.TRAIN, device="GPU-b"))
    built = row(ledger, job(attempt(), resources={"gpus": 2}))
    assert (built.power_mean_w, built.gpu_count) == (300.0, 2)


def test_where_the_agent_heard_of_no_phase_the_metric_log_tells_and_the_row_says_so(ledger: Ledger) -> None:
    ledger.book(entry(0, 15, 3000))
    ledger.log_standard()
    built = row(ledger, job(attempt()))
    assert built.energy_by_phase_kwh == {
        phase.value: pytest.approx(200 * (end_s - start_s) / 3.6e6, rel=1e-12)
        for phase, (start_s, end_s, _) in STANDARD.items()
    }
    assert built.energy_quality == ("fallback",)
    assert built.joules_per_sample == 2.0


def test_energy_outside_any_phase_is_in_the_total_only(ledger: Ledger) -> None:
    ledger.book(entry(-1, 0, 360), *standard_entries(), entry(14, 15, 360))
    built = row(ledger, job(attempt()))
    assert built.energy_kwh == 0.0012
    assert built.energy_by_phase_kwh is not None
    assert sum(built.energy_by_phase_kwh.values()) == 0.001


def test_an_attempt_in_no_phase_has_energy_but_none_by_phase(ledger: Ledger) -> None:
    ledger.book(entry(0, 1, 360))
    built = row(ledger, job(attempt(1, AttemptState.FAILED)))
    assert (built.energy_kwh, built.energy_by_phase_kwh) == (0.0001, None)
    assert built.reasons["energy_by_phase_kwh"] == "no energy was booked to a phase of attempt 1"


@pytest.mark.parametrize(("gpus", "named"), [(1, "T4"), (0, None)])
def test_the_meter_names_the_accelerator_where_the_placement_does_not(
    ledger: Ledger, gpus: int, named: str | None
) -> None:
    if gpus:
        ledger.book(*standard_entries())
    built = row(ledger, job(attempt(accelerator=None), resources={"gpus": gpus}))
    assert built.accelerator == named
    assert ("accelerator" in built.reasons) == (named is None)


def test_a_power_cap_is_what_was_set_not_what_was_asked_for(ledger: Ledger) -> None:
    capped = job(attempt(), power={"cap_percent": 60})
    assert row(ledger, capped).reasons["power_cap_w"] == "attempt 1 left no metric log"
    ledger.log((0, None, POWER_CAP_WATTS, 42.0))
    assert row(ledger, capped).power_cap_w == 42.0
    assert standard(ledger).reasons["power_cap_w"] == "no power cap was asked for"


# Other kinds of jobs


def test_an_inference_job_is_told_per_1000_inferences(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 12, 3600, Phase.INFERENCE))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.INFERENCE, 2, 12)
    ledger.log((7, Phase.INFERENCE, INFERENCES, 200), (12, Phase.INFERENCE, INFERENCES, 300))
    built = row(ledger, job(attempt(), kind="inference", accounting=FRANCE))
    # 1 Wh over 500 inferences; load is not theirs.
    assert built.wh_per_1000_inferences == pytest.approx(2.0, rel=1e-12)
    assert built.g_per_1000_inferences == pytest.approx(0.168, rel=1e-12)
    assert (built.joules_per_sample, built.samples_per_second) == (7.2, 50.0)
    assert (built.metric, built.score) == (None, None)
    assert built.reasons["score"] == built.cegi_reason == "an inference job takes no scores"


INFERRED = {"inference": {"requests": 500}, "accounting": FRANCE}


def infer(ledger: Ledger) -> None:
    """After the standard job: a warm-up that is of no phase, and 500 inferences of 1 Wh."""
    ledger.book(*standard_entries(), entry(14, 15, 360), entry(15, 25, 3600, Phase.INFERENCE))
    ledger.log_standard()
    ledger.log_phase(Phase.INFERENCE, 15, 25)
    ledger.log((25, Phase.INFERENCE, INFERENCES, 500))


def test_a_fine_tune_that_was_to_measure_inference_and_did_not_get_there_says_so(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), **INFERRED))
    assert (built.wh_per_1000_inferences, built.g_per_1000_inferences) == (None, None)
    assert built.reasons["g_per_1000_inferences"] == "attempt 1 (succeeded) logged no inference phase"


def test_a_fine_tune_that_measured_inference_is_told_per_1000_inferences(ledger: Ledger) -> None:
    infer(ledger)
    built = row(ledger, job(attempt(), **INFERRED))
    assert built.wh_per_1000_inferences == pytest.approx(2.0, rel=1e-12)
    assert built.g_per_1000_inferences == pytest.approx(0.168, rel=1e-12)
    # What is told per sample is still its training.
    assert (built.joules_per_sample, built.samples_per_second) == (1.8, 100.0)


def test_inference_adds_nothing_to_cegi_unless_its_scope_is_all(ledger: Ledger) -> None:
    infer(ledger)
    alone = job(attempt(), job_id="alone", accounting=FRANCE)
    ledger.book(*standard_entries(job_id="alone"))
    ledger.log_standard(job_id="alone")
    trained, without = row(ledger, job(attempt(), **INFERRED)), row(ledger, alone)
    assert trained.cegi_g == without.cegi_g
    assert trained.cegi_g is not None
    everything = row(ledger, job(attempt(), **(INFERRED | {"accounting": FRANCE | {"cegi_scope": "all"}})))
    # Training is 1,800 J of 3,600 J + 360 J + 3,600 J.
    assert everything.cegi_g == pytest.approx(trained.cegi_g * 7560 / 1800, rel=1e-12)


def test_watts_of_the_manifest_are_booked_to_the_phases_and_the_warm_up_to_none(ledger: Ledger) -> None:
    infer(ledger)
    built = row(ledger, job(attempt(), **(INFERRED | {"accounting": {"cpu_watts": 36, "dram_watts": 18}})))
    assert built.energy_by_phase_kwh is not None
    # 54 W beside the GPU's: 1 s of the 25 s is in no phase.
    for phase, joules in {"train": 1800 + 540, "evaluate": 450 + 54, "inference": 3600 + 540}.items():
        assert built.energy_by_phase_kwh[phase] == pytest.approx(joules / 3.6e6, rel=1e-12)
    assert built.energy_kwh == pytest.approx((7560 + 25 * 54) / 3.6e6, rel=1e-12)
    assert sum(built.energy_by_phase_kwh.values()) == pytest.approx((7200 + 24 * 54) / 3.6e6, rel=1e-12)


def test_an_inference_job_that_counted_nothing_is_null(ledger: Ledger) -> None:
    ledger.book(entry(2, 12, 3600, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, 2, 12)
    built = row(ledger, job(attempt(), kind="inference"))
    assert (built.wh_per_1000_inferences, built.joules_per_sample) == (None, None)
    assert built.reasons["g_per_1000_inferences"] == "attempt 1 counted no inferences in the inference phase"


def test_an_evaluate_job_has_a_score_but_nothing_to_gain_on(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 4, 900, Phase.EVALUATE))
    ledger.log_phase(Phase.EVALUATE, 2, 4)
    ledger.log((4, Phase.EVALUATE, SAMPLES, 450), (4, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.5))
    built = row(ledger, job(attempt(), kind="evaluate"))
    assert (built.score, built.joules_per_sample, built.samples_per_second) == (0.5, 2.0, 225.0)
    nothing = "nothing was trained: only a finetune job can gain"
    assert built.reasons["score_base"] == built.reasons["gain_percent"] == built.cegi_reason == nothing


# The witness


def test_prometheus_bears_witness_over_the_spans_of_the_energy_log(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    server = FakePrometheus()
    server.ramp("GPU-a", start_s=START_S - 5, end_s=START_S + 20, watts=270)
    (account,) = build_accounts(
        ledger.home, [job(attempt())], prometheus=PrometheusClient("http://p", transport=server.transport())
    )
    # 14 s x 270 W = 3,780 J against 3,600 J.
    assert account.row.energy_disagreement_percent == pytest.approx(5.0, rel=1e-9)
    assert account.row.energy_kwh == 0.001
    assert account.witness.energy_kwh == pytest.approx(0.00105, rel=1e-9)
    assert account.witness.reason is None


def test_without_prometheus_the_log_alone_serves(ledger: Ledger) -> None:
    built = standard(ledger)
    assert built.energy_kwh == 0.001
    assert built.reasons["energy_disagreement_percent"] == "no Prometheus server was asked"


def test_a_prometheus_that_does_not_answer_is_a_reason(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    unreachable = PrometheusClient("http://127.0.0.1:9", deadline_s=0)
    assert (
        row(ledger, job(attempt()), unreachable)
        .reasons["energy_disagreement_percent"]
        .startswith("Prometheus at http://127.0.0.1:9 does not answer")
    )


# Rows as such


def test_rows_come_in_the_order_of_the_jobs_each_with_its_own_entries(ledger: Ledger) -> None:
    ledger.book(entry(0, 1, 3600, Phase.TRAIN, job_id="b"), entry(1, 2, 1800, Phase.TRAIN, job_id="a"))
    ledger.book(entry(0, 1, 900, Phase.TRAIN, job_id="stranger", device="GPU-b"))
    rows = build_rows(ledger.home, [job(attempt(), job_id="a"), job(job_id="c"), job(attempt(), job_id="b")])
    assert [(r.job_id, r.energy_kwh) for r in rows] == [("a", 0.0005), ("c", None), ("b", 0.001)]


def test_no_jobs_no_rows(ledger: Ledger) -> None:
    assert build_rows(ledger.home, []) == ()


def scattered(ledger: Ledger) -> None:
    ledger.book(entry(0, 0, 0, Phase.TRAIN), entry(0, 1, 5))
    ledger.log_phase(Phase.TRAIN, 3, 3)
    ledger.log((3, Phase.TRAIN, SAMPLES, 0), (3, Phase.TRAIN, TRAINABLE_PARAMETERS, 0))


FILLINGS: dict[str, Callable[[Ledger], object]] = {
    "nothing": lambda ledger: None,
    "everything": standard,
    "energy only": lambda ledger: ledger.book(*standard_entries()),
    "metrics only": lambda ledger: ledger.log_standard(),
    "odds and ends": scattered,
}


@pytest.mark.parametrize("fill", FILLINGS.values(), ids=FILLINGS.keys())
@pytest.mark.parametrize("kind", ["finetune", "evaluate", "inference"])
@pytest.mark.parametrize("states", [[], ["running"], ["succeeded"], ["failed"], ["failed", "cancelled"]], ids=repr)
@pytest.mark.parametrize("region", [None, "FRA", "ATLANTIS"])
def test_every_null_has_a_reason_and_only_nulls_do(
    ledger: Ledger, fill: Callable[[Ledger], object], kind: str, states: list[str], region: str | None
) -> None:
    fill(ledger)
    attempts = [attempt(number, AttemptState(state)) for number, state in enumerate(states, start=1)]
    built = row(ledger, job(*attempts, kind=kind, accounting={"region": region}))
    nulls = {name for name in FIELDS if getattr(built, name) is None}
    assert built.reasons.keys() == nulls
    assert all(reason and not reason.endswith(".") for reason in built.reasons.values())
    for name in FIELDS:
        value = getattr(built, name)
        assert not isinstance(value, float) or math.isfinite(value), name


def test_a_field_without_value_or_reason_is_a_bug_that_shows_itself() -> None:
    with pytest.raises(TypeError, match=r"None without a reason: \['seed'\]"):
        row_of({"seed": None})
    with pytest.raises(TypeError, match=r"given twice: \['seed'\]"):
        row_of({"seed": 1}, {"seed": Unknown("twice")})


# A baseline that is shared


def test_a_shared_baseline_that_left_no_log_leaves_base_score_and_gain_unknown(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    built = row(ledger, job(attempt(), baseline_job="base"))
    nothing = "job base, which scores the base model for this one, left no metric log"
    assert (built.score_base, built.score, built.gain_percent, built.cegi_g) == (None, 0.75, None, None)
    assert built.reasons["score_base"] == built.reasons["gain_percent"] == built.cegi_reason == nothing


def test_a_shared_baseline_that_took_no_such_score_is_named_with_its_attempt(ledger: Ledger) -> None:
    ledger.log((1.0, Phase.EVALUATE, f"{SCORE_PREFIX}f1_macro", 0.25), job_id="base")
    ledger.log_standard()
    built = row(ledger, job(attempt(), baseline_job="base"))
    assert built.score_base is None
    assert built.reasons["score_base"] == (
        "attempt 1 of job base, which scores the base model for this one, logged no accuracy in the evaluate phase"
    )


def test_the_base_score_is_that_of_the_last_attempt_of_the_job_that_took_it(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    ledger.log_standard()
    for number, score in ((2, 0.1), (10, 0.25), (9, 0.2)):
        ledger.log((1.0, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", score), number=number, job_id="base")
    (account,) = build_accounts(ledger.home, [job(attempt(), baseline_job="base")])
    assert (account.row.score_base, account.row.score, account.row.gain_percent) == (0.25, 0.75, 200.0)
    assert account.details.figures["score_base_from"] == "attempt 10 of job base"


def test_who_scored_the_base_is_told_of_every_job(ledger: Ledger) -> None:
    ledger.log_standard()
    own, other = build_accounts(ledger.home, [job(attempt()), job(attempt(), kind="evaluate")])
    assert (own.row.score_base, own.details.figures["score_base_from"]) == (0.5, "the job itself")
    assert (other.details.figures["score_base_from"], other.details.reasons["score_base_from"]) == (
        None,
        "nothing was trained: only a finetune job can gain",
    )
