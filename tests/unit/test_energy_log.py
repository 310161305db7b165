"""The energy log: every entry once, by UTC date, exact in energy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from workers.contract import EnergyEntry, Method, Phase, Quality
from workers.errors import InputError
from workers.home import Home
from workers.telemetry import energy_log
from workers.telemetry.energy_log import EnergyLog, utc_date
from workers.telemetry.energy_read import read_energy, read_energy_logs
from workers.units import NS_PER_S

MIDNIGHT_NS = 1_704_067_200 * NS_PER_S
"""2024-01-01T00:00:00Z."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def entry(start_s: float = 0, *, job_id: str | None = "j", device: str = "GPU-a", energy_mj: int = 5) -> EnergyEntry:
    start_ns = MIDNIGHT_NS + int(start_s * NS_PER_S)
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=start_ns + NS_PER_S,
        device=device,
        model="T4",
        kind="gpu",
        energy_mj=energy_mj,
        job_id=job_id,
        attempt=None if job_id is None else 1,
        phase=None if job_id is None else Phase.TRAIN,
        share=1.0,
        method=Method.COUNTER,
        quality=frozenset(),
    )


def test_a_run_whose_name_fits_no_file_is_refused(home: Home) -> None:
    with pytest.raises(InputError, match="cannot name a run of the agent"):
        EnergyLog(home.energy("n"), boot="../x")


def test_no_entries_no_file(home: Home) -> None:
    assert EnergyLog(home.energy("n"), boot="b").write([]) == ()
    assert not home.energy("n").exists()


def test_a_write_that_fails_half_way_leaves_nothing_so_that_a_second_try_books_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EnergyLog(home.energy("n"), boot="b")
    real, refusals = energy_log.write_atomically, [False, True]

    def refuse_once(path: Path, columns: object, schema: object) -> None:
        if refusals and refusals.pop(0):
            raise OSError("disk full")
        real(path, columns, schema)  # type: ignore[arg-type]

    monkeypatch.setattr(energy_log, "write_atomically", refuse_once)
    both_days = [entry(-5), entry(5)]
    with pytest.raises(OSError, match="disk full"):
        log.write(both_days)
    assert read_energy(home) == ()
    assert len(log.write(both_days)) == 2
    assert read_energy(home) == tuple(both_days)


def test_a_torn_file_names_the_node_and_day_that_lost_energy(home: Home) -> None:
    EnergyLog(home.energy("n"), boot="b").write([entry()])
    torn = home.energy("n") / "date=2024-01-02" / "x.parquet"
    torn.parent.mkdir()
    torn.write_bytes(b"PAR1")
    read = read_energy_logs(home)
    assert read.entries == (entry(),)
    assert read.lost == {("n", "2024-01-02")}
    assert read.node_of == {"GPU-a": "n"}


def test_one_file_per_utc_date_of_the_entries_starts(home: Home) -> None:
    paths = EnergyLog(home.energy("n"), boot="b").write([entry(-0.5), entry(0.5), entry(2)])
    assert [path.parent.name for path in paths] == ["date=2023-12-31", "date=2024-01-01"]
    assert [path.parent.parent for path in paths] == [home.energy("n")] * 2
    assert [pq.read_metadata(path).num_rows for path in paths] == [1, 2]


def test_files_of_restarted_agents_never_meet(home: Home) -> None:
    names = set()
    for start_s in (0, 1):
        log = EnergyLog(home.energy("n"), boot="same")
        for _ in range(3):
            names.update(path.name for path in log.write([entry(start_s)]))
    assert len(names) == 6


def test_the_columns_on_disk_are_the_contracts(home: Home) -> None:
    (path,) = EnergyLog(home.energy("n"), boot="b").write([entry()])
    assert {field.name: str(field.type) for field in pq.read_schema(path)} == {
        "start": "timestamp[us, tz=UTC]",
        "end": "timestamp[us, tz=UTC]",
        "device": "string",
        "model": "string",
        "kind": "string",
        "energy_mj": "int64",
        "job_id": "string",
        "attempt": "int32",
        "phase": "string",
        "share": "double",
        "method": "string",
        "quality": "list<element: string>",
        "witness_mj": "int64",
    }


def test_a_log_from_before_the_witness_reads_as_one_that_has_none(home: Home) -> None:
    (path,) = EnergyLog(home.energy("n"), boot="b").write([dataclasses.replace(entry(), witness_mj=7)])
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["witness_mj"]), path)
    assert read_energy(home) == (entry(),)


def test_entries_read_back_with_flags_and_idle_and_times_to_the_microsecond(home: Home) -> None:
    flagged = dataclasses.replace(
        entry(1, energy_mj=2**62), quality=frozenset({Quality.GAP, Quality.SHARED}), share=0.5, method=Method.SIMULATED
    )
    odd = dataclasses.replace(entry(2, job_id=None), start_ns=MIDNIGHT_NS + 2_400, end_ns=MIDNIGHT_NS + 2_600)
    EnergyLog(home.energy("n"), boot="b").write([flagged, odd])
    rounded = dataclasses.replace(odd, start_ns=MIDNIGHT_NS + 2_000, end_ns=MIDNIGHT_NS + 3_000)
    assert read_energy(home) == (rounded, flagged)


def test_entries_of_all_nodes_come_in_order_of_start(home: Home) -> None:
    EnergyLog(home.energy("b"), boot="x").write([entry(1, device="GPU-b"), entry(3, device="GPU-b")])
    EnergyLog(home.energy("a"), boot="x").write([entry(2), entry(1)])
    assert [(e.start_ns - MIDNIGHT_NS, e.device) for e in read_energy(home)] == [
        (1 * NS_PER_S, "GPU-a"),
        (1 * NS_PER_S, "GPU-b"),
        (2 * NS_PER_S, "GPU-a"),
        (3 * NS_PER_S, "GPU-b"),
    ]


def test_some_jobs_or_one_node_can_be_asked_for(home: Home) -> None:
    EnergyLog(home.energy("a"), boot="x").write([entry(1, job_id="j"), entry(2, job_id="k"), entry(3, job_id=None)])
    EnergyLog(home.energy("b"), boot="x").write([entry(4, job_id="j")])
    assert [e.job_id for e in read_energy(home, job_ids={"j", "other"})] == ["j", "j"]
    assert [e.job_id for e in read_energy(home, node="a")] == ["j", "k", None]
    assert [e.job_id for e in read_energy(home, job_ids=["k"], node="a")] == ["k"]
    assert read_energy(home, job_ids=[]) == ()
    assert read_energy(home, node="c") == ()


def test_days_that_are_not_asked_for_are_not_opened(home: Home) -> None:
    EnergyLog(home.energy("n"), boot="b").write([entry(-1), entry(1), entry(86_401)])
    torn = home.energy("n") / "date=2024-01-03" / "x.parquet"
    torn.parent.mkdir()
    torn.write_bytes(b"PAR1")
    read = read_energy_logs(home, days=("2024-01-01", "2024-01-02"))
    assert (read.entries, read.lost) == ((entry(1), entry(86_401)), frozenset())


def test_a_day_begins_at_midnight_utc() -> None:
    assert (utc_date(MIDNIGHT_NS - 1), utc_date(MIDNIGHT_NS)) == ("2023-12-31", "2024-01-01")
