"""A user's own intensity: what is read, what is refused and where, and what a run keeps of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orchestrator.carbon.series_file import MAX_PROBLEMS, keep_series, read_series
from workers.errors import InputError
from workers.home import Home
from workers.parquet import Column, write_atomically
from workers.units import NS_PER_S

NOON = 473_364
NOON_NS = NOON * 3600 * NS_PER_S
GOOD = "time,g_per_kwh\n2024-01-01T12:00Z,100\n2024-01-01T12:30:00+00:00,200\n1704114000,50.5\n"


def problems(folder: Path, text: str | bytes, name: str = "grid.csv") -> list[str]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as found:
        read_series(folder, name)
    return str(found.value).splitlines()


def test_every_bad_line_is_told_with_its_number(tmp_path: Path) -> None:
    text = (
        "time,g_per_kwh\n2024-01-01T12:00,1\nyesterday,1\n2024-01-01T13:00Z,-1\n2024-01-01T14:00Z,many\n"
        "2024-01-01T15:00Z\n2024-01-01T16:00Z,1,2\n2024-01-01T17:00Z,nan\ninf,1\n"
    )
    assert problems(tmp_path, text) == [
        "grid.csv, line 2: time '2024-01-01T12:00' has no zone; write 2024-01-01T12:00Z if it is UTC",
        "grid.csv, line 3: time 'yesterday' is neither ISO 8601 nor seconds since the epoch",
        "grid.csv, line 4: g_per_kwh '-1' is not a number of 0 or more",
        "grid.csv, line 5: g_per_kwh 'many' is not a number of 0 or more",
        "grid.csv, line 6: g_per_kwh 'None' is not a number of 0 or more",
        "grid.csv, line 7: more cells than the first line has columns; put text that holds a comma in quotes",
        "grid.csv, line 8: g_per_kwh 'nan' is not a number of 0 or more",
        "grid.csv, line 9: time 'inf' is no time",
    ]


def test_a_time_given_twice_is_told(tmp_path: Path) -> None:
    text = "time,g_per_kwh\n2024-01-01T12:00Z,1\n2024-01-01T13:00+01:00,2\n"
    assert problems(tmp_path, text) == ["grid.csv, line 3: the time of line 2 again; remove one"]


def test_another_kind_of_file_is_not_listed_line_by_line(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "time,g_per_kwh\n" + "?,?\n" * 1000)) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "grid.csv has no column time and no column g_per_kwh; it has none"),
        ("time,grams\n1,2\n", "grid.csv has no column g_per_kwh; it has time, grams"),
        ("time,g_per_kwh\n", "grid.csv has no rows; give it at least one hour"),
        (b"time,g_per_kwh\n1,2\n\xff", "grid.csv: line 3 is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_table_says_what_it_lacks(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert problems(tmp_path, text) == [told]


def test_a_torn_parquet_file_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, b"PAR1", "grid.parquet")[0].startswith("grid.parquet: not a whole Parquet file")


@pytest.mark.parametrize("name", ["../grid.csv", "/etc/grid.csv", "link.csv", "link/grid.csv"])
def test_a_file_outside_the_manifests_folder_is_refused(tmp_path: Path, name: str) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    for folder in (tmp_path, outside):
        (folder / "grid.csv").write_text(GOOD)
    (inside / "link.csv").symlink_to(tmp_path / "grid.csv")
    (inside / "link").symlink_to(outside)
    with pytest.raises(InputError, match="lies outside the manifest's folder"):
        read_series(inside, name)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"grid\.csv cannot be read beside the manifest: No such file"):
        read_series(tmp_path, "grid.csv")


def test_times_are_iso_or_seconds_and_an_hour_is_the_mean_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text(GOOD)
    found = read_series(tmp_path, "grid.csv").series([])
    assert found.g_per_kwh == {NOON: 150.0, NOON + 1: 50.5}
    assert found.source == f"grid.csv (sha256 {hashlib.sha256(GOOD.encode()).hexdigest()[:16]})"


def test_a_parquet_file_says_the_same(tmp_path: Path) -> None:
    columns = {"time": [NOON_NS, NOON_NS + 3600 * NS_PER_S], "g_per_kwh": [100.0, 50.5], "region": ["FRA", "FRA"]}
    schema = {"time": Column.TIME, "g_per_kwh": Column.FLOAT64, "region": Column.TEXT}
    write_atomically(tmp_path / "grid.parquet", columns, schema)
    assert read_series(tmp_path, "grid.parquet").series(["FRA"]).g_per_kwh == {NOON: 100.0, NOON + 1: 50.5}


def test_seconds_in_a_parquet_file_are_seconds(tmp_path: Path) -> None:
    columns = {"time": [NOON * 3600], "g_per_kwh": [100.0]}
    write_atomically(tmp_path / "s.parquet", columns, {"time": Column.INT64, "g_per_kwh": Column.FLOAT64})
    assert read_series(tmp_path, "s.parquet").series([]).g_per_kwh == {NOON: 100.0}


def test_of_a_file_of_several_regions_a_job_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("region,time,g_per_kwh\nfra,1704110400,1\nUS-CAL,1704110400,2\n")
    found = read_series(tmp_path, "grid.csv")
    assert found.series(["aws:eu-west-3", "FRA"]).g_per_kwh == {NOON: 1.0}
    assert found.series(["us-cal", "FRA"]).g_per_kwh == {NOON: 2.0}
    missing = found.series(["DEU", "DE"])
    assert (missing.g_per_kwh, missing.trouble) == ({}, f"{found.source} has no rows of region DEU or DE")


def test_a_run_keeps_the_file_it_was_given_whatever_becomes_of_it(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "study"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "grid.csv").write_text(GOOD)
    keep_series(home, "run-1", folder, ["data/grid.csv"])
    (folder / "data" / "grid.csv").write_text("time,g_per_kwh\n0,0\n")
    keep_series(home, "run-1", folder, ["data/grid.csv"])
    assert (home.series("run-1") / "data" / "grid.csv").read_text() == GOOD
