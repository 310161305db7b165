"""A host in a folder: its procfs and its RAPL counters, which behave as the kernel's do.

Processes have parents, use processor time and are waited for; counters wrap; zones vanish and come back; files lose
their permissions even for root, who runs tests in containers. Not modelled: threads with children of their own,
frequency, energy that follows load (a test says what a zone draws).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RANGE_UJ = 262_143_328_850
"""``max_energy_range_uj`` of a package with units of 61 µJ."""
EPYC_7742 = "AMD EPYC 7742 64-Core Processor"
"""225 W."""


@dataclass
class _Process:
    parent: int | None
    used: int = 0
    waited: int = 0


@dataclass
class _Zone:
    name: str
    energy_uj: int
    range_uj: int
    there: bool = True


@dataclass
class FakeHost:
    """A host whose files are below ``root``; ``model`` ``None`` is a CPU without a name."""

    root: Path
    model: str | None = EPYC_7742
    packages: int = 1
    threads: int = 4
    virtual: bool = False
    busy: int = 1000
    idle: int = 9000
    _processes: dict[int, _Process] = field(default_factory=dict)
    _zones: dict[str, _Zone] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.proc.mkdir(parents=True)
        self.powercap.mkdir()
        flags = "fpu vme hypervisor" if self.virtual else "fpu vme"
        named = f"model name\t: {self.model}\n" if self.model else ""
        (self.proc / "cpuinfo").write_text(
            "".join(
                f"processor\t: {number}\n{named}physical id\t: {number % self.packages}\nflags\t\t: {flags}\n\n"
                for number in range(self.threads)
            )
        )
        self.pass_ticks(0, 0)

    @property
    def proc(self) -> Path:
        """Its procfs."""
        return self.root / "proc"

    @property
    def powercap(self) -> Path:
        """Its powercap class in sysfs."""
        return self.root / "powercap"

    def pass_ticks(self, busy: int, idle: int) -> None:
        """Processor time passes, on all threads together."""
        self.busy += busy
        self.idle += idle
        # user nice system idle iowait irq softirq steal guest guest_nice: waiting and stolen time are not busy.
        (self.proc / "stat").write_text(f"cpu  {self.busy} 0 0 {self.idle} 7 0 0 3 {self.busy} 0\ncpu0 1 2 3\nintr 5\n")

    def start(self, pid: int, *, parent: int | None = None, used: int = 0) -> None:
        """A process begins; it has used ``used`` ticks before anybody looked."""
        self._processes[pid] = _Process(parent=parent, used=used)
        self._write_processes()

    def work(self, pid: int, ticks: int) -> None:
        """A process uses processor time, which is the host's busy time too."""
        self._processes[pid].used += ticks
        self.pass_ticks(ticks, 0)
        self._write_processes()

    def end(self, pid: int, *, waited_for: bool = True) -> None:
        """A process ends. Its children become init's; its parent has its time if it waited."""
        gone = self._processes.pop(pid)
        if waited_for and gone.parent in self._processes:
            self._processes[gone.parent].waited += gone.used + gone.waited
        for process in self._processes.values():
            process.parent = None if process.parent == pid else process.parent
        shutil.rmtree(self.proc / str(pid))
        self._write_processes()

    def zone(self, folder: str, name: str, *, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> None:
        """A powercap zone appears: ``intel-rapl:0`` is a top one, ``intel-rapl:0:0`` one of its subzones."""
        self._zones[folder] = _Zone(name=name, energy_uj=energy_uj, range_uj=range_uj)
        self._write_zone(folder)

    def draw(self, folder: str, microjoules: int) -> None:
        """A zone counts, and wraps after its highest value."""
        zone = self._zones[folder]
        zone.energy_uj = (zone.energy_uj + microjoules) % zone.range_uj
        self._write_zone(folder)

    def reset(self, folder: str, energy_uj: int = 0) -> None:
        """A zone's counter starts anew."""
        self._zones[folder].energy_uj = energy_uj
        self._write_zone(folder)

    def vanish(self, folder: str) -> None:
        """The zone's files go; it counts on unseen."""
        self._zones[folder].there = False
        shutil.rmtree(self.powercap / folder)

    def come_back(self, folder: str) -> None:
        """The zone's files are there again."""
        self._zones[folder].there = True
        self._write_zone(folder)

    def _write_zone(self, folder: str) -> None:
        zone = self._zones[folder]
        if not zone.there:
            return
        (self.powercap / folder).mkdir(exist_ok=True)
        (self.powercap / folder / "name").write_text(f"{zone.name}\n")
        (self.powercap / folder / "energy_uj").write_text(f"{zone.energy_uj}\n")
        (self.powercap / folder / "max_energy_range_uj").write_text(f"{zone.range_uj}\n")

    def _write_processes(self) -> None:
        for pid, process in self._processes.items():
            task = self.proc / str(pid) / "task" / str(pid)
            task.mkdir(parents=True, exist_ok=True)
            children = [child for child, one in self._processes.items() if one.parent == pid]
            (task / "children").write_text("".join(f"{child} " for child in children))
            # A command may hold spaces and parentheses.
            before = f"{pid} (python) x (1)) S {process.parent or 1} 1 1 0 -1 4194560 9 9 0 0"
            (self.proc / str(pid) / "stat").write_text(f"{before} {process.used} 0 {process.waited} 0 20 0 1 0 77\n")


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on nobody may read files of that name, not even root."""
    read = Path.read_text

    def refuse(path: Path, *arguments: object, **more: object) -> str:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
