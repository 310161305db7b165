"""Which files of a log count? Hidden ones do not, nor those that a compacted file beside them stands for.

Between the moment a compacted file is there and the last of its inputs is not, what they hold is on the disk twice; a
copy of an input may also come back from elsewhere. So a compacted file names its inputs, in its Parquet metadata.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

COMPACTED = "compact-"
"""How the name of a file that stands for others begins."""
REPLACES = "wattledger.replaces"
"""Key of a compacted file's metadata: the names of those others, in its own folder, packed."""
LISTINGS = 5
"""How often a folder that changes under the reader is listed again."""


def log_files(folder: Path) -> tuple[Path, ...]:
    """Every ``*.parquet`` below ``folder`` that counts, in the order of their paths; a folder not there has none."""
    return tuple(sorted(_counting(folder)))


def replaced_by(path: Path) -> frozenset[str]:
    """The names of the files that the compacted file ``path`` stands for; none where it cannot be read."""
    # Imported here as in ``parquet``: an agent that only lists files should not carry it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

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
    replaced: set[str] = set()
    if len(files) > 1:  # alone in its folder, a compacted file has nothing left to stand for
        replaced.update(*(replaced_by(folder / name) for name in files if name.startswith(COMPACTED)))
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
        for _ in range(LISTINGS):
            before_ns = folder.stat().st_mtime_ns
            names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 (names suffice)
            if folder.stat().st_mtime_ns == before_ns:
                break
    return names
