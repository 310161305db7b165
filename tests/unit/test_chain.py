"""Which attempts count together, and which came to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.rows import build_rows
from orchestrator.books.query import ask
from orchestrator.chain import chain_of, wasted_in
from orchestrator.lifecycle import AttemptState, JobRecord, JobState
from orchestrator.store import RunRecord, Store
from tests.unit.ledger import Ledger, at, attempt, entry, job
from workers.contract import Phase
from workers.metric_log import RESUMED_FROM_ATTEMPT, SAMPLES, SCORE_PREFIX, TRAINABLE_PARAMETERS

LOST, PREEMPTED = AttemptState.LOST, AttemptState.PREEMPTED
FRANCE = {"region": "FRA", "pue": 1.5}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def row(ledger: Ledger, record: JobRecord) -> ReportRow:
    (built,) = build_rows(ledger.home, [record])
    return built


def cut_and_resumed(ledger: Ledger, resumed_from: float | None) -> None:
    """Attempt 1 trains 400 samples in 4 s and is cut; attempt 2 trains 600 in 6 s, each sample for 2 J."""
    ledger.book(entry(0, 2, 900, Phase.LOAD), entry(2, 6, 800, Phase.TRAIN))
    ledger.log_phase(Phase.LOAD, 0, 2)
    ledger.log_phase(Phase.TRAIN, 2, None)
    ledger.log((2, Phase.BASELINE, f"{SCORE_PREFIX}accuracy", 0.5), (6, Phase.TRAIN, SAMPLES, 400))
    if resumed_from is not None:
        ledger.log((20, None, RESUMED_FROM_ATTEMPT, resumed_from), number=2)
    ledger.book(
        entry(20, 21, 300, Phase.LOAD, number=2),
        entry(21, 27, 1200, Phase.TRAIN, number=2),
        entry(27, 28, 400, Phase.EVALUATE, number=2),
    )
    for phase, start_s, end_s in ((Phase.LOAD, 20, 21), (Phase.TRAIN, 21, 27), (Phase.EVALUATE, 27, 28)):
        ledger.log_phase(phase, start_s, end_s, number=2)
    ledger.log(
        (21, Phase.BASELINE, f"{SCORE_PREFIX}accuracy", 0.5),
        (21, Phase.TRAIN, TRAINABLE_PARAMETERS, 20_000),
        (27, Phase.TRAIN, SAMPLES, 600),
        (28, Phase.EVALUATE, f"{SCORE_PREFIX}accuracy", 0.75),
        number=2,
    )


@pytest.mark.parametrize("claimed", [2, 3, 0, 7, -1])
def test_a_log_that_claims_to_go_on_from_itself_a_later_or_no_attempt_is_not_followed(claimed: int) -> None:
    assert chain_of([attempt(1, LOST), attempt(2), attempt(3)][:2], lambda number: claimed) == (2,)


def test_a_job_that_never_ran_has_no_chain_and_no_waste() -> None:
    assert (chain_of([], lambda number: 1), wasted_in([], [])) == ((), frozenset())


def test_an_attempt_between_that_began_anew_and_one_that_saved_nothing_came_to_nothing() -> None:
    # 2 went on from 1 and was lost before it saved; 3 went on from 1 too; 4 went on from 3.
    attempts = [attempt(1, PREEMPTED), attempt(2, LOST), attempt(3, LOST), attempt(4)]
    chain = chain_of(attempts, {1: None, 2: 1, 3: 1, 4: 3}.get)
    assert (chain, wasted_in(attempts, chain)) == ((1, 3, 4), {2})


@pytest.mark.parametrize("state", [AttemptState.FAILED, LOST])
def test_while_the_last_attempt_is_one_that_failed_or_was_lost_all_came_to_nothing(state: AttemptState) -> None:
    attempts = [attempt(1, PREEMPTED), attempt(2, state)]
    assert wasted_in(attempts, chain_of(attempts, {1: None, 2: 1}.get)) == {1, 2}


def test_an_attempt_that_was_preempted_waits_to_be_gone_on_from(ledger: Ledger) -> None:
    attempts = [attempt(1, PREEMPTED)]
    assert wasted_in(attempts, chain_of(attempts, lambda number: None)) == frozenset()


def test_an_attempt_that_began_anew_leaves_what_was_before_as_waste(ledger: Ledger) -> None:
    cut_and_resumed(ledger, None)
    built = row(ledger, job(attempt(1, PREEMPTED), attempt(2), accounting=FRANCE))
    assert (built.energy_kwh, built.energy_wasted_kwh) == (3600 / 3.6e6, 1700 / 3.6e6)
    assert (built.joules_per_sample, built.samples_per_second, built.duration_s) == (2.0, 100.0, 8.0)
    assert built.energy_by_phase_kwh == {"load": 300 / 3.6e6, "train": 1200 / 3.6e6, "evaluate": 400 / 3.6e6}


def test_attempts_that_went_on_from_one_another_count_together(ledger: Ledger) -> None:
    cut_and_resumed(ledger, 1)
    together = row(ledger, job(attempt(1, LOST), attempt(2), accounting=FRANCE))
    assert (together.energy_kwh, together.energy_wasted_kwh) == (3600 / 3.6e6, 0.0)
    assert (together.joules_per_sample, together.samples_per_second) == (2.0, 100.0)
    # 0 to 6 s and 20 to 28 s.
    assert together.duration_s == 14.0
    assert together.energy_by_phase_kwh == {"load": 1200 / 3.6e6, "train": 2000 / 3.6e6, "evaluate": 400 / 3.6e6}
    assert (together.score_base, together.score) == (0.5, 0.75)
    # The same job, had it begun anew: CEGI counts 1,200 J of training instead of 2,000.
    alone = row(ledger, job(attempt(2), accounting=FRANCE))
    assert together.cegi_g is not None
    assert alone.cegi_g is not None
    assert alone.energy_by_phase_kwh is not None
    assert together.cegi_g * 1200 == pytest.approx(alone.cegi_g * 2000, rel=1e-12)


def test_a_torn_log_of_an_earlier_attempt_leaves_the_rates_unknown(ledger: Ledger) -> None:
    cut_and_resumed(ledger, 1)
    (ledger.home.metrics("j", 1) / "part-0-000009.parquet").write_bytes(b"PAR1")
    built = row(ledger, job(attempt(1, LOST), attempt(2)))
    assert built.joules_per_sample is None
    assert built.reasons["joules_per_sample"] == "1 files of the metric log of attempt 1 are torn"


def test_the_books_tell_the_same_waste(ledger: Ledger) -> None:
    cut_and_resumed(ledger, 1)
    store = Store(ledger.home.state_db)
    store.submit(RunRecord(run_id="r", name="study", manifest="", submitted_ns=at(0), host="h", pid=1), [job().spec])
    store.start_attempt("j", nodes=("n",), accelerator="T4", now_ns=at(0))
    store.end_attempt("j", 1, state=LOST, reason="lost", then=JobState.QUEUED, now_ns=at(6))
    asked = "SELECT energy_mj, wasted_mj FROM jobs"
    assert ask(ledger.home, asked).rows == ((3_600_000, 1_700_000),)
    store.start_attempt("j", nodes=("n",), accelerator="T4", now_ns=at(20))
    store.end_attempt("j", 2, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=at(29))
    assert ask(ledger.home, asked).rows == ((3_600_000, 0),)
    store.close()


# Gangs


def test_a_gang_counts_its_gpus_over_all_nodes_and_its_ranks_and_devices_add_up(ledger: Ledger) -> None:
    for number, node in enumerate(("node-1", "node-2")):
        ledger.book(entry(0, 10, 1000, Phase.TRAIN, device=f"GPU-{number}"), node=node)
    ledger.log_phase(Phase.TRAIN, 0, 10)
    ledger.log((10, Phase.TRAIN, SAMPLES, 600), (10, Phase.TRAIN, SAMPLES, 400))
    built = row(ledger, job(attempt(), resources={"gpus": 1, "nodes": 2}))
    assert (built.gpu_count, built.joules_per_sample, built.power_mean_w) == (2, 2.0, 200.0)
    assert built.energy_quality == ()


def test_a_gang_of_which_a_board_was_not_metered_is_not_whole(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.log_phase(Phase.TRAIN, 0, 10)
    built = row(ledger, job(attempt(), resources={"gpus": 1, "nodes": 2}))
    assert built.energy_quality == ("gap",)


def test_watts_of_the_manifest_are_of_each_host_of_a_gang(ledger: Ledger) -> None:
    for number, node in enumerate(("node-1", "node-2")):
        ledger.book(entry(0, 10, 1000, Phase.TRAIN, device=f"GPU-{number}"), node=node)
    built = row(ledger, job(attempt(), resources={"gpus": 1, "nodes": 2}, accounting={"cpu_watts": 90}))
    assert built.energy_cpu_kwh == 2 * 90 * 10 / 3.6e6


def test_a_part_of_a_gpu_is_counted_as_a_part(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    built = row(ledger, job(attempt(), resources={"gpus": 0.5}))
    assert (built.gpu_count, built.energy_quality) == (0.5, ())


def test_joules_that_any_rank_could_not_confirm_are_said(ledger: Ledger) -> None:
    ledger.book(entry(0, 10, 1000, Phase.TRAIN))
    ledger.write_environment('{"ranks": 2, "unconfirmed": null}')
    (ledger.home.attempt_folder("j", 1) / "environment-1.json").write_text('{"unconfirmed": "the agent has gone."}')
    assert row(ledger, job(attempt())).energy_quality == ("gap",)
