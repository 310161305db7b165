"""Power limits as leases hold them: the lowest wish on a board is set, and the limit from before always comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workers.contract import Lease, Power
from workers.errors import CapError, MeterError, WattledgerError
from workers.powercap.notes import LimitNotes
from workers.powercap.policy import check_limit, effective_limit_mw, wanted_limit_mw
from workers.telemetry.meter import PowerMeter


class Caps:
    """The caps held on a node's devices. Not thread-safe.

    ``notes`` remembers the limits from before; those it finds left behind by a process that died are owed at once.
    """

    def __init__(self, meter: PowerMeter, notes: LimitNotes) -> None:
        self._meter, self._notes = meter, notes
        self._wishes: dict[tuple[str, str], int] = {}
        devices = [device.uuid for device in meter.devices()]
        notes.adopt(devices)
        self._owed = {device for device in devices if notes.original_mw(device) is not None}

    @property
    def originals_mw(self) -> dict[str, int]:
        """Device to the limit to go back to, mW, of those that are capped."""
        found = {device.uuid: self._notes.original_mw(device.uuid) for device in self._meter.devices()}
        return {device: limit_mw for device, limit_mw in found.items() if limit_mw is not None}

    def resume(self, originals_mw: Mapping[str, int], held: Sequence[tuple[Lease, Power]]) -> list[str]:
        """Take over the caps of an agent that was killed: ``held`` keep theirs, and ``originals_mw`` come back after.

        Gives the devices of leases whose cap cannot be held any more.
        """
        for device in self._meter.devices():
            if device.uuid in originals_mw:
                try:
                    self._notes.keep(device.uuid, originals_mw[device.uuid])
                except CapError:
                    continue  # Another agent has capped it since, and will put it back.
                self._owed.add(device.uuid)
        refused: list[str] = []
        for lease, power in held:
            try:
                self.hold(lease, power)
            except WattledgerError:
                refused += lease.devices
        return refused

    def hold(self, lease: Lease, power: Power) -> None:
        """Set what ``power`` asks for on each device of the lease.

        Raises:
            CapError: a limit is out of range or refused; nothing is left changed.
            InputError: ``power`` asks twice.
            MeterError: a device cannot be read; nothing is left changed.
        """
        if power == Power():
            return
        try:
            for device in lease.devices:
                self._hold_on(device, lease.lease_id, power)
        except WattledgerError:
            self.drop(lease.lease_id)
            raise

    def _hold_on(self, device: str, lease_id: str, power: Power) -> None:
        """Set what ``power`` asks for, unless another lease's cap is lower; the limit from before is noted first."""
        limits = self._meter.limit_range(device)
        wanted = wanted_limit_mw(power, default_mw=limits.default_mw)
        if wanted is None:
            return
        check_limit(wanted, min_mw=limits.min_mw, max_mw=limits.max_mw, device=device)
        is_first = self._notes.original_mw(device) is None
        original = self._notes.keep(device, limits.set_mw)
        try:
            self._meter.set_limit(device, effective_limit_mw([*self._on(device), wanted], original_mw=original))
        except MeterError:
            if is_first and original == limits.set_mw:
                self._notes.drop(device)
            elif is_first:
                self._owed.add(device)
            raise
        self._owed.discard(device)
        self._wishes[device, lease_id] = wanted

    def wanted_mw(self, lease_id: str) -> int | None:
        """The limit the lease asked for, mW, the lowest over its devices; ``None`` when it asked for none."""
        return min((mw for (_, holder), mw in self._wishes.items() if holder == lease_id), default=None)

    def drop(self, lease_id: str) -> list[str]:
        """End the lease's caps, and ``restore``."""
        for device in [device for device, holder in self._wishes if holder == lease_id]:
            del self._wishes[device, lease_id]
            self._owed.add(device)
        return self.restore()

    def restore(self) -> list[str]:
        """Loosen or put back the limits that nobody holds any more; gives the boards that refuse, to be asked again."""
        refused = []
        for device in sorted(self._owed):
            original, wishes = self._notes.original_mw(device), self._on(device)
            assert original is not None
            try:
                self._meter.set_limit(device, effective_limit_mw(wishes, original_mw=original))
            except MeterError:
                refused.append(device)
                continue
            self._owed.discard(device)
            if not wishes:
                self._notes.drop(device)
        return refused

    def _on(self, device: str) -> list[int]:
        return [mw for (capped, _), mw in self._wishes.items() if capped == device]
