"""What ``/proc`` tells of a host: which CPU it has, how long its processors were busy, and who kept them so.

The root is a parameter, so that a test's folder, or a host's tree mounted into a container, reads the same. Times are
integers of clock ticks, as the kernel counts them (usually 10 ms); only ratios of them are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.errors import UnmeteredError

ROOT = Path("/proc")
_COUNTED = 8
"""Fields of ``/proc/stat``'s first line that add up to all time; the guests' after them are part of user and nice."""
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_PARENT = 1
_USED_BY_PROCESS = slice(11, 15)
"""Its parent, and utime, stime, cutime, cstime of ``/proc/PID/stat``, counted after the command's parenthesis."""


_STARTED = 19
"""starttime of ``/proc/PID/stat``, counted likewise."""
_ENDED = "ZXx"
"""States of a process that runs no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuInfo:
    """The host's CPU.

    Attributes:
        model: its name as the CPU gives it; ``None`` where the kernel tells none.
        packages: numbers of the physical packages, in order; never empty.
        threads: hardware threads the kernel sees, all packages together.
        virtual: whether this is a virtual machine, whose threads may be a part of a package only.
    """

    model: str | None
    packages: tuple[int, ...]
    threads: int
    virtual: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class HostTicks:
    """Processor time of the whole host since boot: ``busy`` of ``total`` ticks, all hardware threads together.

    Waiting for a disk is not busy, and neither is time a hypervisor gave to others.
    """

    busy: int
    total: int


def cpu_info(root: Path = ROOT) -> CpuInfo:
    """The host's CPU.

    Raises:
        UnmeteredError: ``cpuinfo`` cannot be read.
    """
    text = _read(root / "cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.+?)\s*$", text, flags=re.MULTILINE)
    packages = sorted({int(number) for number in re.findall(r"^physical id\s*:\s*(\d+)", text, flags=re.MULTILINE)})
    flags = re.search(r"^flags\s*:(.*)$", text, flags=re.MULTILINE)
    return CpuInfo(
        model=models[0] if models else None,
        packages=tuple(packages or [0]),
        threads=len(re.findall(r"^processor\s*:", text, flags=re.MULTILINE)),
        virtual=flags is not None and "hypervisor" in flags[1].split(),
    )


def host_ticks(root: Path = ROOT) -> HostTicks:
    """Processor time of the host.

    Raises:
        UnmeteredError: ``stat`` cannot be read.
    """
    line = _read(root / "stat").partition("\n")[0].split()
    if line[:1] != ["cpu"] or len(line) <= _COUNTED:
        raise UnmeteredError(f"{root / 'stat'} does not begin with the processors' times", f"Mount procfs at {root}.")
    ticks = [int(field) for field in line[1 : _COUNTED + 1]]
    total = sum(ticks)
    return HostTicks(busy=total - ticks[_IDLE] - ticks[_IOWAIT] - ticks[_STEAL], total=total)


def tree_ticks(pid: int, root: Path = ROOT, *, but: Collection[int] = ()) -> int | None:
    """Processor time used so far by a process and its descendants; ``None`` when it is gone.

    Descendants in ``but`` are left out, and theirs, until they have ended.

    Children that ended count once their parent has waited for them. What a descendant used is lost from the sum when
    the process between it and ``pid`` ends first (a daemon), so the sum can fall.
    """
    used = _own_ticks(pid, root)
    if used is None:
        return None
    seen, waiting = {pid, *but}, _children(pid, root)
    while waiting:
        child = waiting.pop()
        if child not in seen:
            seen.add(child)
            used += _own_ticks(child, root) or 0
            waiting += _children(child, root)
    return used


def lineage(pid: int, root: Path = ROOT) -> Iterator[int]:
    """A process, its parent, its parent's parent, up to the first of all; it ends early where one is gone."""
    while pid > 0:
        yield pid
        fields = _stat(pid, root)
        pid = int(fields[_PARENT]) if fields else 0


def started_ticks(pid: int, root: Path = ROOT) -> int | None:
    """When a process began, in ticks since boot: with its number, what makes it this process and no other.

    ``None`` when it is gone, or has ended and only waits for its parent to notice.
    """
    fields = _stat(pid, root)
    return None if not fields or fields[0] in _ENDED else int(fields[_STARTED])


def boot_id(root: Path = ROOT) -> str | None:
    """Names the time since the host's last boot, which counters and process numbers are of; ``None``: not told."""
    try:
        return (root / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _own_ticks(pid: int, root: Path) -> int | None:
    """What a process used itself, and its children it has waited for."""
    fields = _stat(pid, root)
    return sum(int(field) for field in fields[_USED_BY_PROCESS]) if fields else None


def _stat(pid: int, root: Path) -> list[str]:
    """What follows the command in a process's ``stat``; empty when it is gone."""
    try:
        text = (root / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The command is in parentheses and may hold anything, parentheses included.
    return text.rpartition(")")[2].split()


def _children(pid: int, root: Path) -> list[int]:
    """The living children of all threads of a process."""
    children: list[int] = []
    # Plain strings: a process may have hundreds of threads, and paths would double what looking at them takes.
    tasks = f"{root}/{pid}/task"
    try:
        threads = os.listdir(tasks)  # noqa: PTH208
    except OSError:
        return children  # The process has ended since it was listed.
    for thread in threads:
        try:
            with open(f"{tasks}/{thread}/children", "rb", buffering=0) as file:  # noqa: PTH123
                children += map(int, file.read().split())
        except OSError:
            continue  # The thread has ended since it was listed.
    return children


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnmeteredError(
            f"{path} cannot be read: {error.strerror}", "CPU energy needs Linux, and its procfs mounted."
        ) from error
