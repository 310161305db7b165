"""Plays recordings back as if their devices were here now. Behaves as ``PowerMeter`` says; method ``replayed``.

All recordings begin at the first look at any device, and devices recorded together keep their distance in time. Where a
recording tells nothing (before a device's first sample, in a hole, after its end) the device cannot be read, as a board
that is lost cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from workers.contract import Device, Lease, Reading
from workers.errors import CapError, InputError, MeterError
from workers.telemetry.meter import LimitRange, UncappedMeter
from workers.telemetry.recording import RecordedDevice, Recording, read_recording
from workers.units import NS_PER_S


@dataclass(kw_only=True)
class _Player:
    """One device being played; ``ended`` once its last moment was shown."""

    recorded: RecordedDevice
    recording: Recording
    ended: bool = False


class ReplayMeter(UncappedMeter):
    """A node of recorded devices.

    Args:
        recordings: what is played, all at once.
        clock_ns: the time now, ns since the epoch.
        speed: how much faster than it was recorded. The joules stay those of the recording, so that the watts shown are
            ``speed`` times those recorded.

    Attributes:
        left_out: what of the recordings could not be used, a sentence each.

    Raises:
        InputError: no recording, two with the same device, or a speed that is not positive.
    """

    def __init__(
        self, recordings: Sequence[Recording], *, clock_ns: Callable[[], int], speed: float | Fraction = 1
    ) -> None:
        if not recordings or speed <= 0:
            raise InputError(f"{len(recordings)} recordings cannot be played at {speed} times their speed.")
        players = [_Player(recorded=device, recording=each) for each in recordings for device in each.devices]
        self._players: dict[str, _Player] = {}
        for player in players:
            other = self._players.setdefault(player.recorded.uuid, player)
            if other is not player:
                raise InputError(
                    f"{player.recorded.uuid} is in {other.recording.source} and in {player.recording.source}: "
                    "its joules would count twice. Play one of them, or join them into one file."
                )
        self._devices = tuple(
            Device(uuid=uuid, index=index, model=each.recorded.model, kind=each.recorded.kind, method=method)
            for index, (uuid, each) in enumerate(self._players.items())
            for method in (each.recorded.method,)
        )
        self.left_out = tuple(f"{each.source}: {what}" for each in recordings for what in each.skipped)
        self._clock_ns, self._speed = clock_ns, Fraction(speed)
        self._began_ns: int | None = None

    @classmethod
    def open(cls, paths: Sequence[Path], *, clock_ns: Callable[[], int]) -> ReplayMeter:
        """Play the recordings at ``paths`` (see ``read_recording``) as fast as they were made.

        Raises:
            InputError: one of them cannot be played back.
        """
        return cls([read_recording(path) for path in paths], clock_ns=clock_ns)

    def devices(self) -> tuple[Device, ...]:
        """The recorded devices: by recording, then by index."""
        return self._devices

    def read(self, device: str) -> Reading:
        """What the recording says of ``device`` at this moment; the first look after its end shows its end."""
        player = self._player(device)
        recording, track = player.recording, player.recorded.track
        if track is None:
            raise MeterError(f"{device} never told its power in {recording.source}. Play the other devices.")
        now_ns = self._clock_ns()
        if self._began_ns is None:
            self._began_ns = now_ns
        played_ns = recording.start_ns + int((now_ns - self._began_ns) * self._speed)
        if played_ns > track.end_ns and not player.ended:
            player.ended = True
            played_ns = track.end_ns
            now_ns = self._began_ns + int((played_ns - recording.start_ns) / self._speed)
        moment = track.at(played_ns)
        if moment is None:
            where = (played_ns - recording.start_ns) / NS_PER_S
            span = f"{(recording.end_ns - recording.start_ns) / NS_PER_S:.0f} s"
            raise MeterError(
                f"{recording.source} tells nothing of {device} at {where:.0f} s of its {span}. "
                "To play it again, start the agent again."
            )
        sample = player.recorded.samples[moment.knot] if player.recorded.samples else None
        return Reading(
            device=device,
            time_ns=now_ns,
            energy_mj=moment.energy_mj,
            power_mw=int(moment.power_mw * self._speed),
            limit_mw=sample.limit_mw if sample else None,
            utilization=sample.utilization if sample else None,
        )

    def memory(self) -> Mapping[str, Any]:
        """When each device's recording began to play."""
        return {uuid: {"began_ns": self._began_ns} for uuid in self._players}

    def recall(self, memory: Mapping[str, Any], leases: Sequence[Lease]) -> None:  # noqa: ARG002 - it follows nobody
        """The recordings played on meanwhile."""
        for uuid in self._players.keys() & memory.keys():
            self._began_ns = memory[uuid]["began_ns"]

    def limit_range(self, device: str) -> LimitRange:
        """A recording has none."""
        source = self._player(device).recording.source
        raise CapError(f"{device} is played back from {source} and takes no power limit. Remove power.")

    def speed(self, device: str) -> float | None:
        """This host's own pace: a replayed device is no real one, so that no work may land on a board beside it."""
        self._player(device)
        return 1.0

    def _player(self, device: str) -> _Player:
        if device not in self._players:
            raise self.unknown(device)
        return self._players[device]
