"""Reads a recording from disk: a ledger's energy log, or a file ``nvidia-smi`` wrote.

What a device was called is kept: its UUID stays its key where the recording has one. What was simulated when it was
recorded is simulated when it is played back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from workers.contract import EnergyEntry, Method
from workers.errors import InputError
from workers.telemetry.energy_read import read_energy_folder
from workers.telemetry.products import accelerator_type
from workers.telemetry.smi_log import SmiBoard, SmiSample, parse_smi_log
from workers.telemetry.track import Track

UNKNOWN_MODEL = "unknown"
"""The accelerator type of a board whose log does not name it."""
Kind = Literal["gpu", "cpu", "dram"]


@dataclass(frozen=True, kw_only=True)
class RecordedDevice:
    """One device of a recording.

    Attributes:
        uuid: as recorded; made from the recording's path where it was not.
        model: accelerator type; ``kind``: ``gpu``, ``cpu`` or ``dram``.
        method: ``replayed``, or ``simulated`` if any of its joules were.
        track: what it drew; ``None`` when it never told its power twice, so that there is nothing to play.
        samples: what else was sampled at the knots of the track; empty for an energy log.
    """

    uuid: str
    model: str
    kind: Kind
    method: Method
    track: Track | None
    samples: tuple[SmiSample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Devices that were recorded together, in the order of their index: they are played on one clock.

    Attributes:
        source: the path.
        skipped: what could not be used, for people; empty when all could.
    """

    source: str
    devices: tuple[RecordedDevice, ...]
    skipped: tuple[str, ...]

    @property
    def start_ns(self) -> int:
        """When the first of its devices begins."""
        return min(track.start_ns for track in self._tracks())

    @property
    def end_ns(self) -> int:
        """When the last of its devices ends."""
        return max(track.end_ns for track in self._tracks())

    def _tracks(self) -> list[Track]:
        return [device.track for device in self.devices if device.track is not None]


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Args:
        path: a CSV file of ``nvidia-smi``; or the folder of an energy log: of one node, of all, or a ledger's home.

    Raises:
        InputError: there is none, or nothing in it can be played back; the message says why.
    """
    if path.is_dir():
        return _from_energy_log(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the recording {path} cannot be read: {error.strerror}. "
            "Name a CSV file of nvidia-smi, or the folder of an energy log."
        ) from error
    return _from_smi(path, data)


def _from_smi(path: Path, data: bytes) -> Recording:
    log = parse_smi_log(data, source=str(path))
    devices = tuple(_smi_device(path, board) for board in log.boards)
    if all(device.track is None for device in devices):
        raise InputError(f"{path} has only one sample of power, which spans no time. Record for longer.")
    skipped = tuple(f"line {number}: {why}" for number, why in log.skipped)
    return Recording(source=str(path), devices=devices, skipped=skipped)


def _smi_device(path: Path, board: SmiBoard) -> RecordedDevice:
    samples = [(sample.time_ns, sample.power_mw) for sample in board.samples]
    return RecordedDevice(
        uuid=board.uuid or _made_uuid(path, board.key),
        model=UNKNOWN_MODEL if board.name is None else accelerator_type(board.name),
        kind="gpu",
        method=Method.REPLAYED,
        track=Track.from_power(samples) if len(samples) > 1 else None,
        samples=board.samples,
    )


def _made_uuid(path: Path, key: str) -> str:
    """A UUID in NVML's form that says it is replayed, the same whenever the same file is played."""
    digest = hashlib.sha256(f"{path.absolute()}/{key}".encode()).hexdigest()
    groups = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return f"GPU-replay-{'-'.join(groups)}"


def _from_energy_log(folder: Path) -> Recording:
    inside = folder / "energy"
    read = read_energy_folder(inside if inside.is_dir() else folder)
    by_device: dict[str, list[EnergyEntry]] = {}
    for entry in read.entries:
        by_device.setdefault(entry.device, []).append(entry)
    devices = tuple(_logged_device(uuid, entries) for uuid, entries in by_device.items())
    if all(device.track is None for device in devices):
        raise InputError(
            f"{folder} holds no energy log that spans any time. Name a ledger's home, its energy folder, "
            "or one node's folder in it."
        )
    skipped = tuple(f"{path} is torn" for path in read.unreadable)
    return Recording(source=str(folder), devices=devices, skipped=skipped)


def _logged_device(uuid: str, entries: Sequence[EnergyEntry]) -> RecordedDevice:
    first = entries[0]
    methods = {Method.REPLAYED, *(entry.method for entry in entries)}
    spans_time = len({time for entry in entries for time in (entry.start_ns, entry.end_ns)}) > 1
    return RecordedDevice(
        uuid=uuid,
        model=first.model,
        kind=cast("Kind", first.kind),
        method=max(methods, key=lambda method: method.weakness),
        track=Track.from_entries(entries) if spans_time else None,
    )
