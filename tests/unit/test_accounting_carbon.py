"""Carbon of jobs in their rows: hour by hour, by default, and of the hardware; and what each figure says of itself."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest

from orchestrator.accounting.row import ReportRow
from orchestrator.accounting.rows import build_accounts, build_rows
from orchestrator.carbon.series_file import keep_series
from orchestrator.carbon.sources import HourlySources
from orchestrator.lifecycle import AttemptState, JobRecord
from tests.unit.ledger import Ledger, attempt, entry, job, standard_entries
from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.metric_log import INFERENCES

HOUR_S = 3600.0
NVIDIA = "NVIDIA product carbon footprint of the HGX H100 (the maker's figure), one of eight cards, 2025"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home")


def row(ledger: Ledger, record: JobRecord) -> ReportRow:
    sources = HourlySources(ledger.home, environ={})
    try:
        (built,) = build_rows(ledger.home, [record], sources=sources)
    finally:
        sources.close()
    return built


def give(ledger: Ledger, tmp_path: Path, *lines: str) -> str:
    """Have the run keep a file of intensities; its source as rows name it."""
    (tmp_path / "grid.csv").write_text("\n".join(["time,g_per_kwh", *lines, ""]))
    keep_series(ledger.home, "run", tmp_path, ["grid.csv"])
    return "grid.csv (sha256 "


def of_model(model: str, *entries: EnergyEntry) -> list[EnergyEntry]:
    return [dataclasses.replace(one, model=model) for one in entries]


ACCOUNTING = {"region": "FRA", "pue": 1.5, "intensity": "grid.csv"}


def test_hours_that_cannot_be_had_leave_the_yearly_figure_and_say_why(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt(), accounting={"region": "FRA", "pue": 1.5, "intensity": "electricitymaps"}))
    assert (built.carbon_intensity_g_per_kwh, built.co2e_kg) == (56.0, 0.001 * 1.5 * 56 / 1000)
    assert built.carbon_source == (
        "FRA: Our World in Data / Ember (CC BY 4.0), 2023 (yearly, since ELECTRICITYMAPS_TOKEN is not set; put the key "
        "in it, or the path of a file that holds it in ELECTRICITYMAPS_TOKEN_FILE); PUE: as given"
    )


def test_a_series_of_other_hours_leaves_the_yearly_figure(ledger: Ledger, tmp_path: Path) -> None:
    name = give(ledger, tmp_path, "2023-01-01T12:00Z,10")
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt(), accounting=ACCOUNTING))
    assert built.carbon_intensity_g_per_kwh == 56.0
    assert built.carbon_source is not None
    assert f"(yearly, since {name}" in built.carbon_source
    assert "has none of the 1 h)" in built.carbon_source


def test_an_unknown_region_stays_unknown_whatever_the_hours(ledger: Ledger, tmp_path: Path) -> None:
    give(ledger, tmp_path, "2024-01-01T12:00Z,10")
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt(), accounting=ACCOUNTING | {"region": "ATLANTIS"}))
    assert (built.co2e_kg, built.carbon_source) == (None, None)


def test_a_job_that_has_not_run_asks_for_no_hours(ledger: Ledger) -> None:
    built = row(ledger, job(accounting={"region": "FRA", "intensity": "uk"}))
    assert built.carbon_intensity_g_per_kwh == 56.0
    assert built.co2e_kg is None


def test_each_hour_has_its_own_intensity(ledger: Ledger, tmp_path: Path) -> None:
    name = give(ledger, tmp_path, "2024-01-01T12:00Z,100", "2024-01-01T13:00Z,400")
    # 3 kWh over two hours from noon: 1 kWh in the first, 2 kWh in the second.
    ledger.book(entry(0, HOUR_S, 3.6e6), entry(HOUR_S, 2 * HOUR_S, 7.2e6))
    built = row(ledger, job(attempt(), accounting=ACCOUNTING))
    assert (built.energy_kwh, built.pue, built.carbon_intensity_g_per_kwh) == (3.0, 1.5, 300.0)
    assert built.co2e_kg == 1.35
    assert built.carbon_source is not None
    assert built.carbon_source.startswith(name)
    assert built.carbon_source.endswith("(hourly, 2 of 2 h); PUE: as given")


def test_hours_that_are_missing_have_the_yearly_figure_and_are_counted(ledger: Ledger, tmp_path: Path) -> None:
    give(ledger, tmp_path, "2024-01-01T12:00Z,100")
    ledger.book(entry(0, 2 * HOUR_S, 7.2e6))
    built = row(ledger, job(attempt(), accounting=ACCOUNTING))
    assert built.carbon_intensity_g_per_kwh == 78.0
    assert built.carbon_source is not None
    assert "(hourly, 1 of 2 h); rest: FRA: Our World in Data / Ember (CC BY 4.0), 2023 (yearly); PUE" in (
        built.carbon_source
    )


def test_cegi_counts_the_hours_of_the_train_phase_alone(ledger: Ledger, tmp_path: Path) -> None:
    give(ledger, tmp_path, "2024-01-01T12:00Z,100", "2024-01-01T13:00Z,400")
    ledger.log_standard()
    ledger.book(entry(0, 2, 3.6e6, Phase.LOAD), entry(HOUR_S, HOUR_S + 10, 3.6e6, Phase.TRAIN))
    built = row(ledger, job(attempt(), adapter={"method": "lora", "rank": 4}, accounting=ACCOUNTING))
    assert built.carbon_intensity_g_per_kwh == 250.0
    # 1 kWh x 1.5 x 400 g, over a gain of 50 % and 0.02 million parameters.
    assert built.cegi_g == pytest.approx(600 / 50 / 0.02, rel=1e-12)


def test_inferences_have_the_hours_of_their_phase(ledger: Ledger, tmp_path: Path) -> None:
    give(ledger, tmp_path, "2024-01-01T12:00Z,100", "2024-01-01T13:00Z,400")
    ledger.book(entry(0, 2, 3.6e6, Phase.LOAD), entry(HOUR_S, HOUR_S + 10, 3.6e6, Phase.INFERENCE))
    ledger.log_phase(Phase.INFERENCE, HOUR_S, HOUR_S + 10)
    ledger.log((HOUR_S + 5, Phase.INFERENCE, INFERENCES, 2000))
    built = row(ledger, job(attempt(), kind="inference", accounting=ACCOUNTING))
    assert (built.wh_per_1000_inferences, built.g_per_1000_inferences) == (500.0, 300.0)


# Embodied


def test_a_model_nobody_published_a_figure_of_is_null_with_the_reason(ledger: Ledger) -> None:
    ledger.book(*standard_entries())
    built = row(ledger, job(attempt()))
    assert built.embodied_kg is None
    assert built.reasons["embodied_kg"] == (
        "no published figure of the embodied carbon of a T4 is kept "
        "(there is of: A100-40GB, A100-80GB, H100, TPUv3, V100)"
    )


def test_one_model_without_a_figure_makes_the_whole_unknown(ledger: Ledger) -> None:
    first, *rest = standard_entries()
    ledger.book(first, *of_model("H100", *rest))
    assert row(ledger, job(attempt())).embodied_kg is None


def test_a_job_without_a_gpu_has_no_embodied_figure(ledger: Ledger) -> None:
    ledger.book(entry(0, 2, 100, kind="cpu", device="cpu-0"))
    built = row(ledger, job(attempt(), resources={"gpus": 0}))
    assert built.reasons["embodied_kg"] == "no GPU of this job was metered"


def test_an_hour_of_an_h100_is_its_part_of_four_years(ledger: Ledger) -> None:
    ledger.book(*of_model("H100", entry(0, HOUR_S, 3.6e6)))
    built = row(ledger, job(attempt(), accounting={"region": "FRA", "pue": 1.5}))
    assert built.embodied_kg == pytest.approx(164 / (4 * 365 * 24), rel=1e-12)
    assert built.carbon_source == (
        "FRA: Our World in Data / Ember (CC BY 4.0), 2023; PUE: as given; "
        f"embodied: H100 (card), 164 kg over 4 years: {NVIDIA}"
    )
    assert built.co2e_kg == pytest.approx(0.084, rel=1e-12)


def test_failed_attempts_and_shares_count(ledger: Ledger) -> None:
    shared = frozenset({Quality.SHARED})
    ledger.book(
        *of_model("V100", entry(0, HOUR_S, 10), entry(2 * HOUR_S, 3 * HOUR_S, 10, number=2, quality=shared)),
        *of_model("V100", entry(2 * HOUR_S, 3 * HOUR_S, 10, number=2, device="GPU-b")),
    )
    built = row(ledger, job(attempt(1, AttemptState.FAILED), attempt(2)))
    # An hour of one board, then an hour of another and of half of the first, at 1.1 g.
    assert built.embodied_kg == pytest.approx(2.5 * 1.1 / 1000, rel=1e-12)


def test_a_simulated_board_says_so(ledger: Ledger) -> None:
    ledger.book(*of_model("H100", *standard_entries(method=Method.SIMULATED)))
    built = row(ledger, job(attempt()))
    assert built.energy_method == "simulated"
    assert built.embodied_kg is not None
    assert built.carbon_source is not None
    assert built.carbon_source.endswith("2025 (simulated board)")
    assert built.embodied_kg == pytest.approx(164 / (4 * 365 * 24) * 14 / 3600, rel=1e-12)


def test_the_range_of_the_hours_is_carried_into_the_interval_of_co2e(ledger: Ledger, tmp_path: Path) -> None:
    give(ledger, tmp_path, "2024-01-01T12:00Z,100", "2024-01-01T13:00Z,400")
    ledger.book(entry(0, HOUR_S, 3.6e6), entry(HOUR_S, 2 * HOUR_S, 7.2e6))
    with contextlib.closing(HourlySources(ledger.home, environ={})) as sources:
        (built,) = build_accounts(ledger.home, [job(attempt(), accounting=ACCOUNTING)], sources=sources)
    # 300 g/kWh on the mean, 100 at least and 400 at most: a third of 1.35 kg to four thirds of it.
    assert built.details.uncertainty.of(built.row.co2e_kg) == {
        "low": pytest.approx(0.45, rel=1e-9),
        "high": pytest.approx(1.8, rel=1e-9),
    }
    interval = built.details.as_dict()["interval"]
    assert isinstance(interval, dict)
    assert interval["parts"][1]["source"] == "100 to 400 g/kWh over 2 h"
