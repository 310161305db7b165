"""The door of pyarrow: columns in, columns out, as plain Python values, and no half-written file under its own name.

A schema maps column names to a ``Column``. A time column holds integer nanoseconds since the epoch in Python and
``timestamp[us, UTC]`` on disk, so a time read back is the nearest microsecond of the one written.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.units import NS_PER_US


class Column(enum.Enum):
    """What a column holds."""

    TIME = "time"
    TEXT = "text"
    TEXTS = "list of text"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT64 = "float64"


Schema = Mapping[str, Column]


def _pyarrow() -> Any:  # noqa: ANN401 (it has no types)
    """The package, from when it is first needed: it takes 50 MB, which an agent that reads no Parquet goes without."""
    import pyarrow.compute  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    return pyarrow


def _type(kind: Column) -> Any:  # noqa: ANN401 (pyarrow has no types)
    pa = _pyarrow()
    return {
        Column.TIME: pa.timestamp("us", tz="UTC"),
        Column.TEXT: pa.string(),
        Column.TEXTS: pa.list_(pa.string()),
        Column.INT32: pa.int32(),
        Column.INT64: pa.int64(),
        Column.FLOAT64: pa.float64(),
    }[kind]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was read of a folder.

    Attributes:
        columns: name to values, all of one length: the schema's columns, then the partitions' (as text).
        unreadable: files that are torn, or lack a column; their rows are in no column.
        readable: the others, in the order of their rows.
    """

    columns: Mapping[str, list[Any]]
    unreadable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def write_atomically(path: Path, columns: Mapping[str, Sequence[object]], schema: Schema) -> None:
    """Write ``columns`` to ``path``, which readers see whole or not at all; its folder is made if need be.

    Raises:
        FileExistsError: there is a file already; a measurement is never overwritten.
        ValueError: the columns are not the schema's, or differ in length.
    """
    if path.exists():
        raise FileExistsError(f"{path} is already written; a log never writes one file twice.")
    if list(columns) != list(schema):
        raise ValueError(f"columns {list(columns)} are not those of the schema: {list(schema)}")
    arrays = [_to_arrow(columns[name], kind) for name, kind in schema.items()]
    _write(path, _pyarrow().table(dict(zip(schema, arrays, strict=True))))


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows`` (all with the same keys; nested mappings become structs), replacing what was there.

    A column without a value in any row is written as nullable text: readers stumble over a column of no type.

    Raises:
        ValueError: no rows, so no columns are known.
    """
    if not rows:
        raise ValueError(f"{path} would have no columns: there are no rows to write.")
    pa = _pyarrow()
    table = pa.Table.from_pylist(
        [{name: None if value == {} else value for name, value in row.items()} for row in rows]
    )
    typed = [pa.field(field.name, _settled(field.type)) for field in table.schema]
    _write(path, table.cast(pa.schema(typed)))


def read_folder(
    folder: Path,
    schema: Schema,
    *,
    partitions: Sequence[str] = (),
    wanted: Callable[[Mapping[str, str]], bool] = lambda _: True,
    where: Mapping[str, Collection[str]] | None = None,
    optional: Collection[str] = (),
) -> Folder:
    """Every ``*.parquet`` below ``folder``, in the order of their paths; hidden files are skipped.

    Args:
        folder: where to look; one that is not there reads as empty.
        schema: columns to read.
        partitions: names of ``name=value`` folders (``folder`` itself and above included) to add as text columns.
        wanted: told all ``name=value`` folders of a file, whether to open it at all.
        where: text column or partition to the values to keep; rows with others, or null, are left out.
        optional: columns of the schema that a file may lack; they are null there.
    """
    pa = _pyarrow()
    tables, readable, unreadable = [], [], []
    for path in sorted(folder.rglob("*.parquet")):
        labels = partition_labels(path)
        if path.name.startswith(".") or not wanted(labels):
            continue
        try:
            tables.append(_read_file(path, schema, {name: labels[name] for name in partitions}, optional))
        except (pa.ArrowException, OSError, KeyError):
            unreadable.append(path)
        else:
            readable.append(path)
    columns = _to_python(tables, schema, partitions, where or {})
    return Folder(columns=columns, unreadable=tuple(unreadable), readable=tuple(readable))


def read_columns(raw: bytes, names: Sequence[str]) -> dict[str, list[Any]]:
    """Those of the columns ``names`` that a Parquet file of anyone's has, whatever their types.

    A time with a zone is read as integer nanoseconds since the epoch; one without is a naive ``datetime``.

    Raises:
        ValueError: it is not a Parquet file, or torn.
    """
    pa = _pyarrow()
    try:
        file = pa.parquet.ParquetFile(pa.BufferReader(raw))
        table = file.read(columns=[name for name in names if name in file.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a whole Parquet file ({error})") from error
    return {name: _plain(table[name]) for name in table.column_names}


def _plain(column: Any) -> list[Any]:  # noqa: ANN401 (pyarrow has no types)
    pa = _pyarrow()
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def partition_labels(path: Path) -> dict[str, str]:
    """The ``name=value`` folders on the way to ``path``."""
    return dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)


def _read_file(path: Path, schema: Schema, labels: Mapping[str, str], optional: Collection[str]) -> Any:  # noqa: ANN401 (pyarrow has no types)
    pa = _pyarrow()
    table = pa.parquet.ParquetFile(path).read(columns=list(schema))
    for name in set(optional) - set(table.column_names):
        table = table.append_column(name, pa.nulls(len(table), _type(schema[name])))
    table = table.select(list(schema)).cast(pa.schema([(name, _type(kind)) for name, kind in schema.items()]))
    for name, label in labels.items():
        table = table.append_column(name, pa.array([label] * len(table), pa.string()))
    return table


def _to_python(
    tables: list[Any], schema: Schema, partitions: Sequence[str], where: Mapping[str, Collection[str]]
) -> dict[str, list[Any]]:
    """The tables' columns as lists, rows that are not wanted left out."""
    if not tables:
        return {name: [] for name in (*schema, *partitions)}
    pa = _pyarrow()
    table = pa.concat_tables(tables)
    for name, kept in where.items():
        table = table.filter(pa.compute.is_in(table[name], value_set=pa.array(sorted(kept), pa.string())))
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        is_time = schema.get(name) is Column.TIME
        values = (table[name].cast(pa.int64()) if is_time else table[name]).to_pylist()
        columns[name] = [None if v is None else v * NS_PER_US for v in values] if is_time else values
    return columns


def _to_arrow(values: Sequence[Any], kind: Column) -> Any:  # noqa: ANN401 (pyarrow has no types)
    pa = _pyarrow()
    if kind is Column.TIME:
        rounded = [None if value is None else (value + NS_PER_US // 2) // NS_PER_US for value in values]
        return pa.array(rounded, pa.int64()).cast(_type(kind))
    return pa.array(values, _type(kind))


def _settled(kind: Any) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """``kind``, or text where pyarrow saw only nulls or only empty lists."""
    pa = _pyarrow()
    if pa.types.is_null(kind):
        return pa.string()
    return pa.list_(pa.string()) if pa.types.is_list(kind) and pa.types.is_null(kind.value_type) else kind


def _write(path: Path, table: Any) -> None:  # noqa: ANN401 (pyarrow has no types)
    """Write under a hidden name in the same folder, push to disk, then rename: a crash leaves no torn file in sight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with hidden.open("wb") as file:
            _pyarrow().parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    # Some network file systems cannot push a folder to disk; the rename stands, so the write did not fail.
    with contextlib.suppress(OSError):
        _push_folder(path.parent)


def _push_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
