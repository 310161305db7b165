"""From kilowatt-hours to grams: regions, the default of each factor, and their sources."""

from __future__ import annotations

import pytest

from orchestrator.carbon.intensity import DEFAULT_PUE, co2e_kg, facility_pue, intensity_of
from workers.errors import UnknownNameError


def test_an_unknown_region_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown region 'FRO'\. Did you mean 'FRA'\? Known: AUS, BRA, .*WORLD"):
        intensity_of("FRO")


@pytest.mark.parametrize("region", ["", "France", "FR", "EU"])
def test_a_region_that_is_nearly_right_is_not_guessed(region: str) -> None:
    with pytest.raises(UnknownNameError):
        intensity_of(region)


def test_no_region_is_the_world_and_the_source_says_that_it_is_only_the_default() -> None:
    world = intensity_of(None)
    assert (world.region, world.g_per_kwh, world.year) == ("WORLD", 475.0, 2018)
    assert world.source == (
        "world average (default, no region was given): IEA Global Energy & CO2 Status Report 2019, 2018"
    )


def test_the_world_asked_for_by_name_is_no_default() -> None:
    assert intensity_of("world").source == "IEA Global Energy & CO2 Status Report 2019, 2018"


def test_a_region_is_found_in_any_case_with_its_year_and_source() -> None:
    france = intensity_of(" fra ")
    assert (france.region, france.name, france.g_per_kwh, france.year) == ("FRA", "France", 56.0, 2023)
    assert france.source == "Our World in Data / Ember (CC BY 4.0), 2023"


def test_the_table_is_the_published_one() -> None:
    published = {
        "USA": 369.5, "FRA": 56.0, "DEU": 381.0, "GBR": 237.6, "CHN": 582.3, "IND": 713.4, "SWE": 40.7, "NOR": 30.1,
        "POL": 661.9, "CAN": 170.0, "JPN": 485.4, "ESP": 174.1, "ITA": 330.7, "IRL": 290.8, "NLD": 267.6, "BRA": 98.4,
        "AUS": 548.7, "KOR": 430.6, "ZAF": 707.7, "SGP": 470.8, "CHE": 34.8, "FIN": 79.2, "DNK": 151.7, "WORLD": 475.0,
    }  # fmt: skip
    with pytest.raises(UnknownNameError) as unknown:
        intensity_of("?")
    assert {region: intensity_of(region).g_per_kwh for region in unknown.value.known} == published


def test_a_pue_that_was_given_is_used_and_says_so() -> None:
    assert (facility_pue(1.1).value, facility_pue(1.1).source) == (1.1, "as given")


def test_an_unknown_pue_is_the_survey_average_and_says_so() -> None:
    assert facility_pue(None).value == DEFAULT_PUE == 1.56
    assert "default" in facility_pue(None).source
    assert "Uptime Institute Global Data Center Survey 2024" in facility_pue(None).source


def test_two_kilowatt_hours_at_pue_1_5_and_400_grams_are_1200_grams() -> None:
    assert co2e_kg(2.0, 1.5, 400.0) == 1.2
