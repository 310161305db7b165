"""Hourly intensity from servers on real sockets and from the ledger's cache; a failure is a reason, never an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.carbon.hourly import HourlySeries
from orchestrator.carbon.http import Caller
from orchestrator.carbon.intensity import intensity_of
from orchestrator.carbon.sources import HourlySources
from tests.unit.intensity_server import LOGIN, TOKEN, IntensityServer, serving
from workers.contract import Accounting
from workers.home import Home
from workers.units import NS_PER_S

DAY = 19_723
"""2024-01-01."""
MIDNIGHT = DAY * 24
HOURS = range(MIDNIGHT, MIDNIGHT + 24)
MORNING_AFTER_NS = (DAY + 1) * 86_400 * NS_PER_S + 8 * 3600 * NS_PER_S
HOUR_NS = 3600 * NS_PER_S


@pytest.fixture
def server() -> Iterator[IntensityServer]:
    with serving(IntensityServer()) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def ask(
    home: Home,
    server: IntensityServer,
    intensity: str = "electricitymaps",
    *,
    hours: range = HOURS,
    now_ns: int = MORNING_AFTER_NS,
    environ: dict[str, str] | None = None,
    **accounting: str,
) -> HourlySeries:
    """What a fresh report finds; it does not really wait between tries."""
    keys = {"ELECTRICITYMAPS_TOKEN": TOKEN, "WATTTIME_USER": LOGIN[0], "WATTTIME_PASSWORD": LOGIN[1]}
    urls = dict.fromkeys(("ELECTRICITYMAPS_URL", "WATTTIME_URL", "UK_CARBON_URL"), server.url)
    wanted = Accounting.model_validate({"intensity": intensity} | accounting)
    sources = HourlySources(
        home,
        environ=urls | (keys if environ is None else environ),
        caller=Caller(timeout_s=0.5, sleep=lambda _: None),
        now_ns=lambda: now_ns,
    )
    try:
        found = sources.hourly(wanted, intensity_of(wanted.region), hours, run_id="run-1")
        assert found == sources.hourly(wanted, intensity_of(wanted.region), hours, run_id="run-1")
    finally:
        sources.close()
    assert found is not None
    return found


# What goes wrong


def test_a_key_that_is_not_set_is_told_by_its_name(home: Home, server: IntensityServer) -> None:
    found = ask(home, server, region="DEU", environ={})
    assert found.g_per_kwh == {}
    assert found.trouble == (
        "ELECTRICITYMAPS_TOKEN is not set; put the key in it, or the path of a file that holds it in "
        "ELECTRICITYMAPS_TOKEN_FILE"
    )
    assert server.asked == []


def test_a_key_that_is_refused_is_asked_with_once(home: Home, server: IntensityServer) -> None:
    found = ask(
        home, server, region="DEU", hours=range(MIDNIGHT, MIDNIGHT + 72), environ={"ELECTRICITYMAPS_TOKEN": "x"}
    )
    assert found.g_per_kwh == {}
    assert found.trouble is not None
    assert found.trouble.endswith("refuses the key (401); check it, and that it may see this zone")
    assert len(server.asked) == 1


def test_a_server_that_fails_leaves_the_days_it_had_answered(home: Home, server: IntensityServer) -> None:
    server.mishaps = ["ok", *["503"] * 5]
    found = ask(home, server, region="DEU", hours=range(MIDNIGHT, MIDNIGHT + 72))
    assert sorted(found.g_per_kwh) == list(HOURS)
    assert found.trouble is not None
    assert found.trouble.endswith("answers 503")
    assert len(server.asked) == 6


def test_a_server_that_fails_half_of_the_time_is_no_trouble(home: Home, server: IntensityServer) -> None:
    server.mishaps = ["503", "ok"] * 10
    found = ask(home, server, region="DEU", hours=range(MIDNIGHT, MIDNIGHT + 240))
    assert (len(found.g_per_kwh), found.trouble) == (240, None)


def test_the_next_report_asks_again_for_what_failed(home: Home, server: IntensityServer) -> None:
    server.mishaps = ["torn"] * 5
    assert ask(home, server, region="DEU").g_per_kwh == {}
    assert len(ask(home, server, region="DEU").g_per_kwh) == 24


def test_a_zone_nobody_names_is_told(home: Home, server: IntensityServer) -> None:
    assert ask(home, server).trouble == "no zone of electricitymaps is named; give accounting.zone"
    assert ask(home, server, "watttime", region="USA").trouble == "no zone of watttime is named; give accounting.zone"


def test_an_answer_in_another_unit_is_not_believed(home: Home, server: IntensityServer) -> None:
    server.unit = "percentile"
    found = ask(home, server, "watttime", zone="CAISO_NORTH")
    assert (found.g_per_kwh, found.trouble) == (
        {},
        "WattTime answers in percentile, where lbs_co2_per_mwh were expected",
    )


def test_a_file_the_ledger_lost_is_told(home: Home, server: IntensityServer) -> None:
    found = ask(home, server, "grid.csv")
    assert found.trouble is not None
    assert found.trouble.startswith("grid.csv cannot be read")


def test_a_ledger_that_cannot_be_written_is_read(tmp_path: Path, server: IntensityServer) -> None:
    (tmp_path / "carbon").write_text("in the way")
    assert len(ask(Home(tmp_path), server, region="DEU").g_per_kwh) == 24


# What comes out


def test_electricity_maps_is_asked_for_the_regions_country(home: Home, server: IntensityServer) -> None:
    server.missing, server.estimated = {3}, {5, 6}
    found = ask(home, server, region="aws:eu-central-1")
    assert found.g_per_kwh == {MIDNIGHT + hour: 100.0 + hour for hour in range(24) if hour != 3}
    assert found.provisional == {MIDNIGHT + 5, MIDNIGHT + 6}
    assert found.source == "Electricity Maps, average, life cycle, DE"
    query = {"zone": "DE", "start": "2024-01-01T00:00Z", "end": "2024-01-02T00:00Z", "temporalGranularity": "hourly"}
    assert server.asked == [("/v3/carbon-intensity/past-range", query)]


def test_a_zone_that_is_named_goes_before_the_country(home: Home, server: IntensityServer) -> None:
    assert ask(home, server, region="USA", zone="US-CAL-CISO").source.endswith("US-CAL-CISO")
    assert server.asked[0][1]["zone"] == "US-CAL-CISO"


@pytest.mark.parametrize(
    ("signal", "name", "g_per_kwh"), [("average", "co2_aoer", 453.59237), ("marginal", "co2_moer", 907.18474)]
)
def test_watttimes_pounds_are_grams_and_its_signal_is_named(
    home: Home, server: IntensityServer, signal: str, name: str, g_per_kwh: float
) -> None:
    found = ask(home, server, "watttime", zone="CAISO_NORTH", signal=signal)
    assert found.g_per_kwh == dict.fromkeys(HOURS, g_per_kwh)
    assert found.source == f"WattTime, {signal} ({name}), CAISO_NORTH"
    assert [path for path, _ in server.asked] == ["/login", "/v3/historical"]


def test_the_uk_has_its_half_hours_averaged_and_forecasts_are_provisional(home: Home, server: IntensityServer) -> None:
    server.estimated = {23}
    found = ask(home, server, "uk")
    assert found.g_per_kwh == dict.fromkeys(HOURS[:-1], 80.0) | {HOURS[-1]: 90.0}
    assert found.provisional == {HOURS[-1]}
    assert found.source == "UK Carbon Intensity API, average, GB"


def test_a_key_may_lie_in_a_file(home: Home, server: IntensityServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = ask(home, server, region="DEU", environ={"ELECTRICITYMAPS_TOKEN_FILE": str(tmp_path / "token")})
    assert len(found.g_per_kwh) == 24


@pytest.mark.parametrize("name", ["aws:eu-west-3", "fra", "FR"])
def test_a_file_may_call_a_clouds_region_by_its_country(home: Home, server: IntensityServer, name: str) -> None:
    kept = home.series("run-1") / "grid.csv"
    kept.parent.mkdir(parents=True)
    kept.write_text(f"time,region,g_per_kwh\n2024-01-01T00:00Z,DEU,9\n2024-01-01T00:00Z,{name},7\n")
    assert ask(home, server, "grid.csv", region="aws:eu-west-3").g_per_kwh == {MIDNIGHT: 7.0}


# The cache


def test_a_whole_day_that_has_passed_is_asked_for_once(home: Home, server: IntensityServer) -> None:
    first = ask(home, server, region="DEU")
    assert ask(home, server, region="DEU", now_ns=MORNING_AFTER_NS + 90 * 24 * HOUR_NS) == first
    assert len(server.asked) == 1


def test_missing_hours_are_asked_for_again_after_an_hour_and_not_for_ever(home: Home, server: IntensityServer) -> None:
    server.missing = {3}
    ask(home, server, region="DEU")
    assert len(ask(home, server, region="DEU", now_ns=MORNING_AFTER_NS + HOUR_NS - 1).g_per_kwh) == 23
    assert len(server.asked) == 1
    late_ns = MORNING_AFTER_NS + 40 * 24 * HOUR_NS
    ask(home, server, region="DEU", now_ns=late_ns)
    ask(home, server, region="DEU", now_ns=late_ns + 24 * HOUR_NS)
    assert len(server.asked) == 2


def test_what_was_provisional_is_replaced_by_what_is_final(home: Home, server: IntensityServer) -> None:
    server.estimated = {3}
    assert ask(home, server, region="DEU").provisional == {MIDNIGHT + 3}
    server.estimated = set()
    assert ask(home, server, region="DEU", now_ns=MORNING_AFTER_NS + HOUR_NS).provisional == frozenset()


def test_old_hours_serve_where_the_server_does_not(home: Home, server: IntensityServer) -> None:
    server.missing = {3}
    ask(home, server, region="DEU")
    server.mishaps = ["503"] * 5
    found = ask(home, server, region="DEU", now_ns=MORNING_AFTER_NS + HOUR_NS)
    assert len(found.g_per_kwh) == 23
    assert found.trouble is not None


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"asked_ns": 1, "g_per_kwh": {"1": NaN}, "provisional": []}'])
def test_a_torn_file_of_the_cache_is_as_none(home: Home, server: IntensityServer, torn: str) -> None:
    ask(home, server, region="DEU")
    (kept,) = home.carbon.rglob("*.json")
    assert (kept.relative_to(home.carbon).as_posix(), json.loads(kept.read_text())["asked_ns"]) == (
        "hours/electricitymaps/DE/2024-01-01.json",
        MORNING_AFTER_NS,
    )
    kept.write_text(torn)
    assert len(ask(home, server, region="DEU").g_per_kwh) == 24
    assert len(server.asked) == 2


def test_average_and_marginal_figures_are_kept_apart(home: Home, server: IntensityServer) -> None:
    ask(home, server, "watttime", zone="CAISO_NORTH")
    found = ask(home, server, "watttime", zone="CAISO_NORTH", signal="marginal")
    assert found.g_per_kwh[MIDNIGHT] == 907.18474


def test_no_file_of_the_ledger_holds_a_key(home: Home, server: IntensityServer) -> None:
    ask(home, server, region="DEU")
    ask(home, server, "watttime", zone="CAISO_NORTH")
    kept = [path.read_text() for path in home.root.rglob("*") if path.is_file()]
    assert kept
    assert not any(secret in text for text in kept for secret in (TOKEN, *LOGIN))
