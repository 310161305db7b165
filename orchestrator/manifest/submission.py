"""The manifests of one submission, from their files: all that is wrong with each, and with them together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.manifest.document import MAX_BYTES, read_documents, shortened
from orchestrator.manifest.model import Manifest
from orchestrator.manifest.needs import Cycle, in_order, need_places
from orchestrator.manifest.parse import Checked, manifests_of, parse_manifest
from workers.errors import InputError, ManifestError


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """A manifest, and the file it is from: what it names is looked for in ``path.parent``.

    Attributes:
        text: the whole file's, as it was read and checked.
    """

    path: Path
    text: str
    manifest: Manifest


def load_manifest(path: Path, *, profile: str | None = None, now_ns: int | None = None) -> Manifest:
    """Read and check the one manifest at ``path``, a UTF-8 file; see ``load_manifests``."""
    text = _read(path)
    return parse_manifest(text, source=str(path), profile=profile, folder=path.parent, now_ns=_now(now_ns))


def load_manifests(
    paths: Sequence[Path], *, profile: str | None = None, now_ns: int | None = None
) -> tuple[ManifestFile, ...]:
    """Read and check the manifests of one submission, one or more in a file, in the order given.

    Args:
        paths: UTF-8 files; ``---`` on a line of its own tells the manifests of one file apart.
        profile: what all of them are run under; each must have it, be it as ``{}``, which changes nothing. ``None``:
            as written.
        now_ns: what the time is, ns since the epoch, for deadlines; ``None`` asks the clock.

    Raises:
        ManifestError: all that is wrong with the manifests of one file.
        InputError: all that is wrong with several files, or a file that is missing, a folder, not readable, not UTF-8.
    """
    errors: list[InputError] = []
    found: list[Checked] = []
    texts: dict[Path, str] = {}
    time_ns = _now(now_ns)
    for path in paths:
        try:
            texts[path] = _read(path)
            documents = read_documents(texts[path], source=str(path))
            found += (
                Checked.of(one, path=path, profile=profile, folder=path.parent, now_ns=time_ns) for one in documents
            )
        except InputError as error:
            errors.append(error)
    across = [*_same_names(found), *_circles(found)]
    for path in dict.fromkeys(checked.path for checked in found):
        here = [checked for checked in found if checked.path == path]
        problems = [(line or _place(one, here), told) for one in here for line, told in one.problems]
        problems += [(line, told) for where, line, told in across if where == path]
        if problems:
            errors.append(ManifestError(str(path), problems))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError("\n".join(map(str, errors)))
    manifests = manifests_of(found, profile)
    return tuple(
        ManifestFile(path=one.path, text=texts[one.path], manifest=made)
        for one, made in zip(found, manifests, strict=True)
    )


def _same_names(found: Sequence[Checked]) -> Iterator[tuple[Path, int, str]]:
    first: dict[str, Checked] = {}
    for checked in found:
        if checked.name is None:
            continue
        other = first.setdefault(checked.name, checked)
        if other is not checked:
            place = f"{other.path}:{other.document.line_of(('name',))}"
            told = f"name: {shortened(checked.name)} is already the name of the manifest at {place}; rename one"
            yield checked.path, checked.document.line_of(("name",)), told


def _circles(found: Sequence[Checked]) -> Iterator[tuple[Path, int, str]]:
    named = {checked.name: checked for checked in found if checked.name is not None}
    needs = {name: [need for _, need in need_places(checked.data)] for name, checked in named.items()}
    order = in_order(needs)
    if isinstance(order, Cycle):
        first, second = order.path[:2]
        checked = named[first]
        place = next(path for path, need in need_places(checked.data) if need == second)
        yield checked.path, checked.document.line_of(place), str(order)


def _place(checked: Checked, of_file: Sequence[Checked]) -> int:
    """Where a problem without a line of its own is told: where its manifest begins, if a file holds several."""
    return checked.document.first_line if len(of_file) > 1 else 0


def _now(now_ns: int | None) -> int:
    return time.time_ns() if now_ns is None else now_ns


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Give the path of a manifest, such as quickstart.yaml.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder. Give the path of one manifest in it.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check its path and permissions.") from error
    try:
        # A file cut off inside a letter is too long before it is anything else.
        return raw.decode("utf-8-sig", errors="strict" if len(raw) <= MAX_BYTES else "replace")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not UTF-8 text (line {line}). Save it as UTF-8.") from error
