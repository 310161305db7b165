"""One node's part of an attempt: a process for each rank, from their start to what they left. Needs no Ray."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.outcome import Outcome, keep_outcome, replace_file
from workers import lifeline
from workers.home import Home

CHECKPOINT_GRACE_S = 30.0
"""How long an attempt may take to save a checkpoint before it is told to leave as it is."""
LEAVE_GRACE_S = 5.0
"""How long it may take to leave in order before it is killed."""
MEMORY_REMEDY = "Lower training.batch_size, or reserve what it needs with resources.memory_gb."


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """What a part is to run.

    Attributes:
        job: the whole job as JSON; ``home``: the ledger, the same path on every node.
        number: from 0; ``count``: how many parts the attempt has.
        ranks: processes of this part, as many in each.
        agent: socket of the node's agent; ``None`` where there is none, and the attempt meters itself.
        simulated: whether the devices are, so that no real one beside them may be used.
        program: the module that runs.
    """

    job: str
    job_id: str
    attempt: int
    home: str
    number: int
    count: int
    ranks: int
    agent: str | None
    simulated: bool
    program: str

    @property
    def folder(self) -> Path:
        """The attempt's."""
        return Home(Path(self.home)).attempt_folder(self.job_id, self.attempt)

    @property
    def first_rank(self) -> int:
        """Ranks are counted over all parts."""
        return self.number * self.ranks

    @property
    def world_size(self) -> int:
        """Ranks of all parts."""
        return self.count * self.ranks


def free_meeting(address: str) -> tuple[str, int]:
    """Where the ranks meet: an address and a port of it that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


class Part:
    """The processes of a part, started at once. Its methods may be called from any thread and return at once.

    Args:
        devices: indices on the node; the first rank gets the first. A part of one, or none, makes one rank.
        meeting: where all ranks meet; unused where there is only one.
        checkpoint_grace_s: how long it may save, and ``leave_grace_s``: how long it may leave, when it is stopped.

    Attributes:
        outcome: known once all its processes have ended, and kept in the attempt's folder as well.
    """

    def __init__(
        self,
        spec: PartSpec,
        devices: Sequence[str],
        meeting: tuple[str, int],
        *,
        checkpoint_grace_s: float = CHECKPOINT_GRACE_S,
        leave_grace_s: float = LEAVE_GRACE_S,
    ) -> None:
        self.outcome: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        # Nobody who waits for it, and gives up, may take it away from the others.
        self.outcome.set_running_or_notify_cancel()
        self._spec = spec
        self._steps = (
            (signal.SIGUSR1, checkpoint_grace_s),
            (signal.SIGTERM, leave_grace_s),
            (signal.SIGKILL, None),
        )
        self._lock, self._over = threading.Lock(), threading.Event()
        self._sent: signal.Signals | None = None
        self._is_stopped = False
        self._oom_kills = _oom_kills()
        self._ranks: list[_Rank] = []
        self._bad: list[Outcome] = []
        try:
            self._start(devices, meeting)
        except OSError as error:
            never = f"it could not be started: {error}. Mend that on its node."
            self._bad.append(Outcome(exit_code=None, reason=never, ended_ns=time.time_ns()))
            self._leave(signal.SIGTERM)
        threading.Thread(target=self._run, name="part", daemon=True).start()

    def stop(self, *, checkpoint: bool) -> None:
        """Ask it to leave, then tell it to, then kill it. A second call changes nothing, unless it is more urgent."""
        self._is_stopped = True
        self._leave(signal.SIGUSR1 if checkpoint else signal.SIGTERM)

    def _start(self, devices: Sequence[str], meeting: tuple[str, int]) -> None:
        self._spec.folder.mkdir(parents=True, exist_ok=True)
        job_file = self._spec.folder / "job.json"
        if self._spec.number == 0:
            replace_file(job_file, self._spec.job)
        for local_rank in range(self._spec.ranks):
            mine = devices[local_rank : local_rank + 1] if self._spec.ranks > 1 else devices
            self._ranks.append(_Rank(self._spec, local_rank, job_file, mine, meeting))

    def _watch(self, rank: _Rank) -> None:
        """See a rank end; the others cannot go on without it when it ended badly."""
        exit_code: int | None = None
        try:
            exit_code = rank.wait()
            reason = self._reason(rank, exit_code)
        except ChildProcessError:
            reason = f"its process ended, and how is not known since another program asked for it; see {rank.log}"
        if exit_code != 0:
            with self._lock:
                self._bad.append(Outcome(exit_code=exit_code, reason=reason, ended_ns=time.time_ns()))
            self._leave(signal.SIGTERM)

    def _run(self) -> None:
        """Watch all ranks to their ends, and keep what they left."""
        watchers = [threading.Thread(target=self._watch, args=(rank,), daemon=True) for rank in self._ranks]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
        self._over.set()
        good = Outcome(exit_code=0, reason=None, ended_ns=time.time_ns())
        outcome = self._bad[0] if self._bad else good
        with contextlib.suppress(OSError):
            keep_outcome(self._spec.folder, self._spec.number, outcome)
        self.outcome.set_result(outcome)

    def _leave(self, first: signal.Signals) -> None:
        threading.Thread(target=self._escalate, args=(first,), name=f"leave {first.name}", daemon=True).start()

    def _escalate(self, first: signal.Signals) -> None:
        """Each signal is sent once: a second one would interrupt how an attempt puts things in order."""
        order = [number for number, _ in self._steps]
        for number, grace_s in self._steps[order.index(first) :]:
            with self._lock:
                if self._sent is not None and order.index(self._sent) >= order.index(number):
                    return
                self._sent = number
            for rank in self._ranks:
                rank.signal(number)
            if self._over.wait(grace_s):
                return

    def _reason(self, rank: _Rank, exit_code: int) -> str:
        """What the attempt said, else how its process ended."""
        with contextlib.suppress(OSError):
            return rank.reason_file.read_text(encoding="utf-8")
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        if self._is_stopped:
            return f"it was asked to leave, and {how}"
        if exit_code == -signal.SIGKILL and self._sent != signal.SIGKILL:
            how += f", which we did not send. {self._who_killed()} {MEMORY_REMEDY} The end of its log is in"
        else:
            how += "; see"
        return f"its process {how} {rank.log}"

    def _who_killed(self) -> str:
        now = _oom_kills()
        if self._oom_kills is not None and now is not None and now > self._oom_kills:
            return "Meanwhile the kernel of its node killed a process because memory ran out."
        return "A person may have, or the kernel or Ray because memory ran out."


class _Rank:
    """One process. It is signalled only while it certainly is that process."""

    def __init__(
        self, spec: PartSpec, local_rank: int, job_file: Path, devices: Sequence[str], meeting: tuple[str, int]
    ) -> None:
        self.number = spec.first_rank + local_rank
        suffix = f"-{self.number}" if self.number else ""
        self.log, self.reason_file = spec.folder / f"log{suffix}.txt", spec.folder / f"reason{suffix}.txt"
        arguments = [str(job_file), "--home", spec.home, "--attempt", str(spec.attempt)]
        arguments += ["--agent", spec.agent] if spec.agent else []
        arguments += [part for device in devices for part in ("--device", device)]
        environment = {**os.environ, **_group_environment(spec, local_rank, meeting)}
        if spec.simulated:
            # Work for a simulated device must not land on a real one beside it.
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with self.log.open("ab") as log:
            self._child = lifeline.spawn(spec.program, arguments, environment=environment, stdout=log, stderr=log)
        self._lock, self._is_over = threading.Lock(), False

    def signal(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._is_over:
                os.kill(self._child.process.pid, number)

    def wait(self) -> int:
        """Its exit code. What it started in its own group ends with it."""
        pid = self._child.process.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        # Not reaped yet, so that nobody else can have its number.
        with self._lock:
            self._is_over = True
            os.killpg(pid, signal.SIGKILL)
            exit_code = self._child.release(timeout_s=0)
        assert exit_code is not None
        return exit_code


def _group_environment(spec: PartSpec, local_rank: int, meeting: tuple[str, int]) -> Mapping[str, str]:
    """As ``torchrun`` tells a process who it is. One alone is told nothing: libraries would look for others."""
    if spec.world_size == 1:
        return {}
    address, port = meeting
    return {
        "RANK": str(spec.first_rank + local_rank),
        "WORLD_SIZE": str(spec.world_size),
        "LOCAL_RANK": str(local_rank),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def _oom_kills() -> int | None:
    """Processes this host's kernel has killed for memory since it started; ``None`` where it does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
