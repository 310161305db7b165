"""Embodied carbon and SCI: the published figures, and the arithmetic of the standard."""

from __future__ import annotations

import pytest

from orchestrator.carbon.embodied import embodied_g, embodied_models, embodied_of
from orchestrator.carbon.sci import sci_g
from orchestrator.cluster.local import DEFAULT_SIMULATED


def test_a_model_without_a_published_figure_has_none() -> None:
    assert embodied_of("T4") is None
    assert embodied_models() == ("A100-40GB", "A100-80GB", "H100", "TPUv3", "V100")


def test_the_boards_a_local_cluster_simulates_by_itself_have_one() -> None:
    assert [name for name in DEFAULT_SIMULATED if embodied_of(name) is None] == []


def test_a_thousand_kilograms_over_four_years_are_28_5_grams_for_an_hour() -> None:
    assert round(embodied_g(1000, reserved_h=1, lifetime_years=4), 1) == 28.5


def test_half_a_board_for_twice_the_time_is_the_whole_board() -> None:
    half = embodied_g(164, reserved_h=2, lifetime_years=4, share=0.5)
    assert half == embodied_g(164, reserved_h=1, lifetime_years=4)


def test_a_board_reserved_for_its_whole_life_answers_for_all_of_it() -> None:
    assert embodied_g(318, reserved_h=4 * 365 * 24, lifetime_years=4) == 318_000


def test_each_figure_keeps_its_scope() -> None:
    h100, a100, v100 = (embodied_of(model) for model in ("H100", "A100-80GB", "V100"))
    assert h100 is not None
    assert a100 is not None
    assert v100 is not None
    assert h100.provenance == (
        "H100 (card), 164 kg over 4 years: NVIDIA product carbon footprint of the HGX H100 (the maker's figure), "
        "one of eight cards, 2025"
    )
    assert a100.scope == "card and its share of the server"
    assert (round(h100.g_per_hour, 2), round(a100.g_per_hour, 2), v100.g_per_hour) == (4.68, 9.08, 1.1)


@pytest.mark.parametrize(("model", "g_per_hour"), [("V100", 1.1), ("TPUv3", 0.8)])
def test_a_figure_published_per_hour_is_kept_as_it_is(model: str, g_per_hour: float) -> None:
    found = embodied_of(model)
    assert found is not None
    assert (found.g_per_hour, found.basis) == (g_per_hour, f"{g_per_hour} g per hour")


@pytest.mark.parametrize("units", [0, -1])
def test_a_rate_per_nothing_is_refused(units: float) -> None:
    with pytest.raises(ValueError, match="functional unit"):
        sci_g(energy_kwh=1, pue=1, g_per_kwh=1, embodied_g=1, units=units)


def test_sci_is_energy_times_intensity_plus_embodied_per_unit() -> None:
    # 2 kWh at PUE 1.5 and 400 g/kWh are 1,200 g; with 300 g of hardware, 1.5 g for each of 1,000 inferences.
    assert sci_g(energy_kwh=2, pue=1.5, g_per_kwh=400, embodied_g=300, units=1000) == 1.5


def test_with_pue_1_and_nothing_embodied_it_is_the_form_of_eco2ai() -> None:
    # CF = γ · PUE · (E_CPU + E_GPU + E_RAM)
    assert sci_g(energy_kwh=0.25 + 0.5 + 0.25, pue=1, g_per_kwh=381.0, embodied_g=0, units=1) == 381.0
