"""From kilowatt-hours to grams: regions, the default of each factor, and their sources."""

from __future__ import annotations

import pytest

from orchestrator.carbon.intensity import DEFAULT_PUE, co2e_kg, facility_pue, intensity_of
from workers.errors import UnknownNameError


def test_an_unknown_region_names_the_nearest_and_how_regions_are_written() -> None:
    with pytest.raises(UnknownNameError) as unknown:
        intensity_of("aws:us-east-9")
    assert str(unknown.value) == (
        "unknown region 'aws:us-east-9'. Did you mean 'aws:us-east-2' or 'aws:us-east-1' or 'aws:us-west-2'? Known: "
        "ISO 3166 codes of countries (USA or US), WORLD, and regions of clouds as aws:…, gcp:… and azure:…."
    )


def test_a_country_in_words_is_told_its_code() -> None:
    with pytest.raises(UnknownNameError, match=r"azure:…; Germany is DEU\.$"):
        intensity_of("germany")


@pytest.mark.parametrize("region", ["", "France", "EU", "us-east-1", "aws:", "CAF"])
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


@pytest.mark.parametrize(("code", "region"), [("US", "USA"), ("gb", "GBR"), ("De", "DEU")])
def test_a_country_has_two_codes(code: str, region: str) -> None:
    assert intensity_of(code) == intensity_of(region)


def test_a_region_of_google_has_the_figure_google_publishes() -> None:
    eemshaven = intensity_of("GCP:europe-west4")
    assert (eemshaven.region, eemshaven.country, eemshaven.name) == (
        "gcp:europe-west4",
        "NL",
        "Eemshaven (Netherlands)",
    )
    assert (eemshaven.g_per_kwh, eemshaven.year) == (208.81, 2024)
    assert eemshaven.source == "Google Cloud, grid carbon intensity of its regions, 2024"


@pytest.mark.parametrize(("region", "country"), [("aws:us-east-1", "USA"), ("azure:westeurope", "NLD")])
def test_a_region_of_another_cloud_has_its_countrys_figure_and_says_whose_it_is(region: str, country: str) -> None:
    here, whole = intensity_of(region), intensity_of(country)
    assert (here.region, here.g_per_kwh, here.year, here.country) == (
        region,
        whole.g_per_kwh,
        whole.year,
        whole.country,
    )
    assert here.source == f"{whole.name}: {whole.source}"


def test_every_figure_can_be_one_and_has_its_source_and_year() -> None:
    with pytest.raises(UnknownNameError) as unknown:
        intensity_of("?")
    found = [intensity_of(region) for region in unknown.value.known]
    assert len(found) == 207 + 136
    assert all(0 < one.g_per_kwh < 1500 and 2018 <= one.year <= 2024 and one.source and one.name for one in found)


def test_the_figures_that_were_read_in_the_publication_are_kept_whatever_later_tables_say() -> None:
    published = {
        "USA": 369.5, "FRA": 56.0, "DEU": 381.0, "GBR": 237.6, "CHN": 582.3, "IND": 713.4, "SWE": 40.7, "NOR": 30.1,
        "POL": 661.9, "CAN": 170.0, "JPN": 485.4, "ESP": 174.1, "ITA": 330.7, "IRL": 290.8, "NLD": 267.6, "BRA": 98.4,
        "AUS": 548.7, "KOR": 430.6, "ZAF": 707.7, "SGP": 470.8, "CHE": 34.8, "FIN": 79.2, "DNK": 151.7, "WORLD": 475.0,
    }  # fmt: skip
    assert {region: intensity_of(region).g_per_kwh for region in published} == published
    assert {intensity_of(region).year for region in published} == {2023, 2018}


def test_a_pue_that_was_given_is_used_and_says_so() -> None:
    assert (facility_pue(1.1).value, facility_pue(1.1).source) == (1.1, "as given")


def test_an_unknown_pue_is_the_survey_average_and_says_so() -> None:
    assert facility_pue(None).value == DEFAULT_PUE == 1.56
    assert "default" in facility_pue(None).source
    assert "Uptime Institute Global Data Center Survey 2024" in facility_pue(None).source


def test_two_kilowatt_hours_at_pue_1_5_and_400_grams_are_1200_grams() -> None:
    assert co2e_kg(2.0, 1.5, 400.0) == 1.2
