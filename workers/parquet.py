"""The door of pyarrow: columns in, columns out, as plain Python values, and no half-written file under its own name.

A schema maps column names to a ``Column``. A time column holds integer nanoseconds since the epoch in Python and
``timestamp[us, UTC]`` on disk, so a time read back is the nearest microsecond of the one written.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
COMPACTED = "compact-"
"""How the name of a file that stands for others begins."""
REPLACES = "wattledger.replaces"
"""Key of a compacted file's metadata: the names of those others, in its own folder."""
_LISTINGS = 5
"""How often a folder that changes under the reader is listed again."""

_ARROW: dict[Column, Any] = {
    Column.TIME: pa.timestamp("us", tz="UTC"),
    Column.TEXT: pa.string(),
    Column.TEXTS: pa.list_(pa.string()),
    Column.INT32: pa.int32(),
    Column.INT64: pa.int64(),
    Column.FLOAT64: pa.float64(),
}


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was read of a folder.

    Attributes:
        columns: name to values, all of one length: the schema's columns, then the partitions' (as text).
        unreadable: files that are torn, or lack a column; their rows are in no column.
    """

    columns: Mapping[str, list[Any]]
    unreadable: tuple[Path, ...]

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
    _write(path, pa.table(dict(zip(schema, arrays, strict=True))))


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows`` (all with the same keys; nested mappings become structs), replacing what was there.

    A column without a value in any row is written as nullable text: readers stumble over a column of no type.

    Raises:
        ValueError: no rows, so no columns are known.
    """
    if not rows:
        raise ValueError(f"{path} would have no columns: there are no rows to write.")
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
) -> Folder:
    """Every ``*.parquet`` below ``folder``, in the order of their paths; hidden files are skipped.

    Args:
        folder: where to look; one that is not there reads as empty.
        schema: columns to read.
        partitions: names of ``name=value`` folders (``folder`` itself and above included) to add as text columns.
        wanted: told all ``name=value`` folders of a file, whether to open it at all.
        where: text column or partition to the values to keep; rows with others, or null, are left out.
    """
    for _ in range(_LISTINGS):
        tables, unreadable = [], []
        for path in log_files(folder):
            labels = partition_labels(path)
            if not wanted(labels):
                continue
            try:
                tables.append(_read_file(path, schema, {name: labels[name] for name in partitions}))
            except (pa.ArrowException, OSError, KeyError):
                unreadable.append(path)
        if all(path.exists() for path in unreadable):  # else it was compacted while we read: what replaced it is there
            break
    return Folder(columns=_to_python(tables, schema, partitions, where or {}), unreadable=tuple(unreadable))


def log_files(folder: Path) -> tuple[Path, ...]:
    """Every ``*.parquet`` below ``folder`` that counts, in the order of their paths.

    Hidden files do not count, nor do those that a compacted file beside them stands for: between the moment a compacted
    file is there and the last of its inputs is not, what they hold is on the disk twice.
    """
    return tuple(sorted(_counting(folder)))


def replaced_by(path: Path) -> frozenset[str]:
    """The names of the files that the compacted file ``path`` stands for; none where it cannot be read."""
    try:
        packed = (pq.read_metadata(path).metadata or {})[REPLACES.encode()]
        return frozenset(json.loads(zlib.decompress(base64.b64decode(packed))))
    except (pa.ArrowException, OSError, KeyError, ValueError, zlib.error):
        return frozenset()


def pack_names(names: Collection[str]) -> str:
    """File names as the metadata of a compacted file holds them, under ``REPLACES``."""
    return base64.b64encode(zlib.compress(json.dumps(sorted(names)).encode())).decode()


def _counting(folder: Path) -> Iterator[Path]:
    names = _names(folder)
    files = [name for name in names if name.endswith(".parquet")]
    compacted = [name for name in files if name.startswith(COMPACTED)]
    replaced: set[str] = set()
    if len(files) > 1:  # alone in its folder, a compacted file has nothing left to stand for
        replaced.update(*(replaced_by(folder / name) for name in compacted))
    yield from (folder / name for name in files if name not in replaced)
    for name in names:
        if not name.endswith(".parquet") and (folder / name).is_dir():
            yield from _counting(folder / name)


def _names(folder: Path) -> list[str]:
    """What is in a folder, hidden files apart, as of one moment.

    A listing that a rename overtakes may lack both the old names and the new one, and energy with them.
    """
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for _ in range(_LISTINGS):
            before_ns = folder.stat().st_mtime_ns
            names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 (names suffice)
            if folder.stat().st_mtime_ns == before_ns:
                break
    return names


def partition_labels(path: Path) -> dict[str, str]:
    """The ``name=value`` folders on the way to ``path``."""
    return dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)


def _read_file(path: Path, schema: Schema, labels: Mapping[str, str]) -> Any:  # noqa: ANN401 (pyarrow has no types)
    table = pq.ParquetFile(path).read(columns=list(schema)).select(list(schema))
    table = table.cast(pa.schema([(name, _ARROW[kind]) for name, kind in schema.items()]))
    for name, label in labels.items():
        table = table.append_column(name, pa.array([label] * len(table), pa.string()))
    return table


def _to_python(
    tables: list[Any], schema: Schema, partitions: Sequence[str], where: Mapping[str, Collection[str]]
) -> dict[str, list[Any]]:
    """The tables' columns as lists, rows that are not wanted left out."""
    if not tables:
        return {name: [] for name in (*schema, *partitions)}
    table = pa.concat_tables(tables)
    for name, kept in where.items():
        table = table.filter(pc.is_in(table[name], value_set=pa.array(sorted(kept), pa.string())))
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        is_time = schema.get(name) is Column.TIME
        values = (table[name].cast(pa.int64()) if is_time else table[name]).to_pylist()
        columns[name] = [None if v is None else v * NS_PER_US for v in values] if is_time else values
    return columns


def _to_arrow(values: Sequence[Any], kind: Column) -> Any:  # noqa: ANN401 (pyarrow has no types)
    if kind is Column.TIME:
        rounded = [None if value is None else (value + NS_PER_US // 2) // NS_PER_US for value in values]
        return pa.array(rounded, pa.int64()).cast(_ARROW[kind])
    return pa.array(values, _ARROW[kind])


def _settled(kind: Any) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """``kind``, or text where pyarrow saw only nulls or only empty lists."""
    if pa.types.is_null(kind):
        return pa.string()
    return pa.list_(pa.string()) if pa.types.is_list(kind) and pa.types.is_null(kind.value_type) else kind


def _write(path: Path, table: Any) -> None:  # noqa: ANN401 (pyarrow has no types)
    """Write under a hidden name in the same folder, push to disk, then rename: a crash leaves no torn file in sight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with hidden.open("wb") as file:
            pq.write_table(table, file)
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
