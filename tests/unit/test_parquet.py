"""The door of pyarrow: whole files or none, torn ones told apart, partitions as columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from workers import parquet
from workers.parquet import Column, read_folder, write_atomically, write_rows

SCHEMA = {"ts": Column.TIME, "who": Column.TEXT, "count": Column.INT64, "flags": Column.TEXTS}


def columns(*who: str | None) -> dict[str, list[object]]:
    n = len(who)
    return {"ts": [1_000] * n, "who": list(who), "count": list(range(n)), "flags": [["a", "b"]] * n}


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_atomically(path, columns("x"), SCHEMA)
    with pytest.raises(FileExistsError, match="never writes one file twice"):
        write_atomically(path, columns("y"), SCHEMA)
    assert read_folder(tmp_path, SCHEMA).columns["who"] == ["x"]


def test_columns_that_are_not_the_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not those of the schema"):
        write_atomically(tmp_path / "a.parquet", {"ts": [1]}, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected length 2"):
        write_atomically(tmp_path / "a.parquet", columns("x", "y") | {"count": [1]}, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_nothing_a_reader_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(descriptor: int) -> None:
        seen = read_folder(tmp_path, SCHEMA)
        assert (len(seen), seen.unreadable) == (0, ())
        raise OSError("disk full")

    monkeypatch.setattr(parquet.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.parquet", columns("x"), SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_torn_and_foreign_files_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "good.parquet", columns("x", "y"), SCHEMA)
    whole = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    write_atomically(tmp_path / "foreign.parquet", {"other": ["x"]}, {"other": Column.TEXT})
    write_atomically(
        tmp_path / "wrong-type.parquet", columns("x") | {"count": ["many"]}, SCHEMA | {"count": Column.TEXT}
    )
    read = read_folder(tmp_path, SCHEMA)
    assert read.columns["who"] == ["x", "y"]
    assert [path.name for path in read.unreadable] == [
        "cut.parquet",
        "empty.parquet",
        "foreign.parquet",
        "wrong-type.parquet",
    ]


def test_hidden_files_and_other_files_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".a.parquet.123.tmp").write_bytes(b"half")
    (tmp_path / ".b.parquet").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("hello")
    assert read_folder(tmp_path, SCHEMA) == parquet.Folder(columns={name: [] for name in SCHEMA}, unreadable=())


def test_a_folder_that_is_not_there_reads_as_empty(tmp_path: Path) -> None:
    read = read_folder(tmp_path / "nowhere", SCHEMA, partitions=("node",))
    assert len(read) == 0
    assert list(read.columns) == [*SCHEMA, "node"]


def test_every_kind_of_column_reads_back_as_it_was_written(tmp_path: Path) -> None:
    schema = {
        "time": Column.TIME,
        "text": Column.TEXT,
        "texts": Column.TEXTS,
        "small": Column.INT32,
        "large": Column.INT64,
        "real": Column.FLOAT64,
    }
    written = {
        "time": [1_700_000_000_123_456_000, None],
        "text": ["ü", None],
        "texts": [[], ["a"]],
        "small": [-1, None],
        "large": [2**63 - 1, None],
        "real": [0.1, None],
    }
    write_atomically(tmp_path / "a.parquet", written, schema)
    assert read_folder(tmp_path, schema).columns == written


def test_times_round_to_the_nearest_microsecond_and_are_utc_on_disk(tmp_path: Path) -> None:
    schema = {"t": Column.TIME}
    write_atomically(tmp_path / "a.parquet", {"t": [1_499, 1_500, 2_000]}, schema)
    assert read_folder(tmp_path, schema).columns["t"] == [1_000, 2_000, 2_000]
    assert str(pq.read_schema(tmp_path / "a.parquet").field("t").type) == "timestamp[us, tz=UTC]"


def test_partitions_become_text_columns_even_where_they_look_like_numbers(tmp_path: Path) -> None:
    write_atomically(tmp_path / "node=7" / "date=2024-01-01" / "a.parquet", columns("x"), SCHEMA)
    write_atomically(tmp_path / "node=b" / "date=2024-01-02" / "a.parquet", columns("y"), SCHEMA)
    read = read_folder(tmp_path, SCHEMA, partitions=("node", "date"))
    assert read.columns["node"] == ["7", "b"]
    assert read.columns["date"] == ["2024-01-01", "2024-01-02"]


def test_a_partition_above_the_folder_counts_too(tmp_path: Path) -> None:
    write_atomically(tmp_path / "node=a" / "x.parquet", columns("x"), SCHEMA)
    assert read_folder(tmp_path / "node=a", SCHEMA, partitions=("node",)).columns["node"] == ["a"]


def test_a_file_outside_its_partition_is_listed_as_unreadable(tmp_path: Path) -> None:
    write_atomically(tmp_path / "stray.parquet", columns("x"), SCHEMA)
    read = read_folder(tmp_path, SCHEMA, partitions=("node",))
    assert (len(read), [path.name for path in read.unreadable]) == (0, ["stray.parquet"])


def test_rows_are_kept_by_the_values_of_a_column_or_partition(tmp_path: Path) -> None:
    write_atomically(tmp_path / "node=a" / "1.parquet", columns("x", "y", None), SCHEMA)
    write_atomically(tmp_path / "node=b" / "1.parquet", columns("x"), SCHEMA)
    read = read_folder(tmp_path, SCHEMA, partitions=("node",), where={"who": {"x"}, "node": {"a"}})
    assert (read.columns["who"], read.columns["node"]) == (["x"], ["a"])


def test_a_file_that_is_not_wanted_is_not_opened(tmp_path: Path) -> None:
    write_atomically(tmp_path / "node=a" / "1.parquet", columns("x"), SCHEMA)
    (tmp_path / "node=b").mkdir()
    (tmp_path / "node=b" / "torn.parquet").write_bytes(b"PAR1")
    read = read_folder(tmp_path, SCHEMA, wanted=lambda labels: labels["node"] == "a")
    assert (read.columns["who"], read.unreadable) == (["x"], ())


def test_nothing_wanted_means_nothing_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "1.parquet", columns("x", None), SCHEMA)
    assert len(read_folder(tmp_path, SCHEMA, where={"who": ()})) == 0


def test_rows_need_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows"):
        write_rows(tmp_path / "r.parquet", [])


def test_rows_with_nested_and_unknown_values_read_back(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    rows: list[dict[str, object]] = [
        {"id": "a", "by_phase": {"train": 1.5}, "quality": [], "embodied": None, "kwh": None},
        {"id": "b", "by_phase": None, "quality": [], "embodied": None, "kwh": 2.0},
    ]
    write_rows(path, rows)
    assert pq.read_table(path).to_pylist() == rows


def test_rows_without_a_single_known_value_still_have_typed_columns(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_rows(path, [{"a": None, "b": {}, "c": []}])
    assert [str(field.type) for field in pq.read_schema(path)] == ["string", "string", "list<element: string>"]


def test_rows_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_rows(path, [{"a": 1}])
    write_rows(path, [{"a": 2}])
    assert pq.read_table(path).to_pylist() == [{"a": 2}]
