"""``python -m workers.attempt job.json``: runs one job on this machine, metered and logged. Needs no Ray.

With ``--agent`` it leases its devices from that node's agent; without, it starts an agent of its own for as long as it
runs. Started once per rank with ``torchrun``'s variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
``MASTER_PORT``) the processes train one model together, each on a device of its own.

``SIGUSR1``: save a checkpoint and leave. ``SIGTERM``, ``SIGINT``: leave. Exit codes: 0 done, 1 the job failed, 2 the
job cannot be used, 3 the agent does not answer, 4 another rank ended first, 75 left as asked, 130 cancelled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from workers import environment, lifeline, metric_log
from workers.contract import JobSpec, Phase
from workers.errors import InputError, JobError, UnreachableError, WattledgerError
from workers.home import Home
from workers.leaving import Leaving, Left
from workers.metric_log import MetricLog
from workers.session import Session
from workers.tasks import task_info, unscored
from workers.telemetry.client import AgentConnection, HeldLease
from workers.training.models import model_info
from workers.training.ranks import Ranks
from workers.units import mj_to_joules

CANCELLED_EXIT_CODE = 130
LEFT_EXIT_CODE = 75
"""Left its place as it was asked to by ``SIGUSR1``; what it had done is in the job's newest checkpoint, if any."""
DEATH_GRACE_S = 5.0
"""How long an attempt that lost its parent may take to leave in order."""
REASON_FILE = "reason.txt"
"""Beside the job file: why rank 0 failed. The others' are ``reason_file(rank)``."""


class Cancelled(BaseException):
    """Somebody asked the attempt to stop; not an ``Exception``, so that no handler of errors takes it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an attempt runs.

    Attributes:
        agent: the agent's socket; ``None``: the attempt starts its own, which meters by ``meter`` and ``cpu``.
        devices: UUIDs or indices on the node that are this rank's; empty means as many as the job wants, from the first
            on, or of several ranks each the one of its place on the node.
        ranks: which process of the attempt this is.
    """

    job: Path
    home: Path
    attempt: int
    agent: Path | None
    devices: tuple[str, ...]
    meter: str
    cpu: str = "auto"
    ranks: Ranks = field(default_factory=Ranks)


def reason_file(rank: int) -> str:
    """Name of the file in which a rank says why it failed."""
    return f"reason-{rank}.txt" if rank else REASON_FILE


def run_attempt(spec: JobSpec, options: Options, agent: Path, leaving: Leaving) -> str:
    """Run this rank's part of the job with devices leased from the agent at ``agent``; gives what was booked, in words.

    Raises:
        WattledgerError: whatever ended it; its energy is booked all the same.
        Left: it was asked to.
    """
    home, ranks = Home(options.home), options.ranks
    folder = home.attempt_folder(spec.job_id, options.attempt)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        AgentConnection(agent) as connection,
        HeldLease(
            connection,
            job_id=spec.job_id,
            attempt=options.attempt,
            devices=options.devices or _devices(spec, ranks),
            cpus=_cpus(spec, ranks),
            phase=Phase.LOAD,
            power=spec.power,
            rank=ranks.rank,
        ) as lease,
    ):
        print(f"{spec.job_id}: attempt {options.attempt} on {', '.join(lease.devices) or 'no device'}", flush=True)
        found = environment.capture(spec, rank=ranks.rank, ranks=ranks.world_size) | {
            environment.UNMETERED: lease.unmetered,
            "devices": {uuid: lease.models.get(uuid) for uuid in lease.devices},
        }
        environment.keep(folder, ranks.rank, found)
        with MetricLog(home.metrics(spec.job_id, options.attempt), rank=ranks.rank) as log:
            if lease.cap_watts is not None:
                log.log(metric_log.POWER_CAP_WATTS, lease.cap_watts, phase=None)
            # Imported under the lease: loading torch is part of what the job costs. CUDA reads the variable then.
            os.environ["CUDA_VISIBLE_DEVICES"] = lease.visible_devices
            from workers import pipeline  # noqa: PLC0415
            from workers.training.checkpoint import Checkpoints, digest_of  # noqa: PLC0415

            shown = folder if ranks.is_first else None
            session = Session(lease=lease, log=log, folder=shown, phases=pipeline.phases_of(spec))
            checkpoints = Checkpoints(home.checkpoints(spec.job_id), digest=digest_of(spec), attempt=options.attempt)
            pipeline.run(
                spec,
                session,
                pipeline.Place(artifacts=folder, checkpoints=checkpoints, leaving=leaving, ranks=ranks),
            )
        if ranks.is_first:
            checkpoints.remove()
        energy_mj = lease.close()
        found |= {environment.UNMETERED: lease.unmetered, environment.UNCONFIRMED: lease.unconfirmed}
        environment.keep(folder, ranks.rank, found)
    if not lease.devices:
        return "no metered device"
    if energy_mj is None:
        return f"its last joules are not confirmed: {lease.unconfirmed}"
    return f"{mj_to_joules(energy_mj):,.1f} J booked"


@contextlib.contextmanager
def own_agent(options: Options) -> Iterator[Path]:
    """An agent for this attempt alone, started again when it dies; gives its socket.

    Raises:
        InputError: several ranks would each meter the whole node.
        UnreachableError: it did not start; what it said is on standard error.
    """
    if options.ranks.world_size > 1:
        raise InputError(
            "several ranks lease from one agent of their node. Start it with `python -m workers.agent`, and give its "
            "socket to each rank with --agent."
        )
    node = f"{platform.node()}-{os.getpid()}"
    arguments = ["--home", str(options.home), "--node", node, "--meter", options.meter, "--cpu", options.cpu]
    said: list[bytes] = []
    child = lifeline.KeptChild(
        lambda: lifeline.spawn("workers.agent", arguments, stdout=subprocess.PIPE), on_ready=said.append
    )
    try:
        if not said[0]:
            raise UnreachableError("the job's own agent did not start; it said why above.")
        yield Path(json.loads(said[0])["socket"])
    finally:
        child.release(timeout_s=DEATH_GRACE_S)


def parse(arguments: Sequence[str]) -> tuple[Options, int | None]:
    """Command line to options and the lifeline's descriptor."""
    parser = argparse.ArgumentParser(prog="python -m workers.attempt", description="Run one job, metered and logged.")
    parser.add_argument("job", type=Path, help="job.json; task and model are enough")
    parser.add_argument("--home", type=Path, default=Home.default().root, help="ledger folder (env WATTLEDGER_HOME)")
    parser.add_argument("--attempt", type=int, default=1, help="number of this attempt (default 1)")
    parser.add_argument("--agent", type=Path, help="socket of the node's agent; without it the job meters itself")
    parser.add_argument(
        "--device", action="append", help="UUID or index of a device; repeat for more (default: the first)"
    )
    parser.add_argument("--meter", default="auto", help="without --agent: auto, nvml or simulated:TYPE (default auto)")
    parser.add_argument("--cpu", default="auto", help="without --agent: how CPU and DRAM are metered (default auto)")
    parser.add_argument(lifeline.FLAG, type=int, help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    options = Options(
        job=found.job,
        home=found.home,
        attempt=found.attempt,
        agent=found.agent,
        devices=tuple(found.device or ()),
        meter=found.meter,
        cpu=found.cpu,
    )
    return options, found.lifeline_fd


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; gives the exit code."""
    options, lifeline_fd = parse(sys.argv[1:] if arguments is None else arguments)
    leaving = Leaving()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _cancel)
    signal.signal(signal.SIGUSR1, leaving.ask)
    if lifeline_fd is not None:
        lifeline.watch(lifeline_fd, _leave)
    try:
        options = replace(options, ranks=Ranks.of(os.environ))
        spec = JobSpec.from_json(_read(options.job), source=str(options.job))
        # Asked before anything is started, so that a misspelt name costs no energy.
        task_info(spec.task)
        if (problem := unscored(spec.task, spec.kind)) is not None:
            raise InputError(f"{options.job} cannot be used: {problem}.")
        model_info(spec.model)
        with contextlib.ExitStack() as stack:
            agent = options.agent or stack.enter_context(own_agent(options))
            booked = run_attempt(spec, options, agent, leaving)
    except WattledgerError as error:
        return _fail(options, str(error), error.exit_code)
    except OSError as error:
        sentence = f"a file cannot be used: {error}. Make room, or name another ledger with --home."
        return _fail(options, sentence, JobError.exit_code)
    except MemoryError:
        sentence = "out of host memory. Lower training.batch_size, or give the job a larger node."
        return _fail(options, sentence, JobError.exit_code)
    except Left:
        sys.stderr.write("left as asked; the job goes on from its newest checkpoint.\n")
        return LEFT_EXIT_CODE
    except Cancelled:
        sys.stderr.write("cancelled; what was measured so far is in the ledger.\n")
        return CANCELLED_EXIT_CODE
    print(
        f"{spec.job_id}: done, {booked}; logs in {Home(options.home).metrics(spec.job_id, options.attempt)}", flush=True
    )
    return 0


def _fail(options: Options, sentence: str, exit_code: int) -> int:
    """Say why on standard error, and beside the job file, where whoever started this looks."""
    sys.stderr.write(f"{sentence}\n")
    with contextlib.suppress(OSError):
        options.job.with_name(reason_file(options.ranks.rank)).write_text(sentence, encoding="utf-8")
    return exit_code


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Name a job.json.") from error


def _cancel(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise Cancelled


def _leave() -> None:
    """The parent is gone: leave as if cancelled, and if that hangs, leave at once."""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(DEATH_GRACE_S)
    os._exit(CANCELLED_EXIT_CODE)


def _devices(spec: JobSpec, ranks: Ranks) -> tuple[str, ...]:
    """Indices on the node, where the launcher named none."""
    if not spec.resources.gpus:
        return ()
    if ranks.world_size > 1:
        return (str(ranks.local_rank),)
    return tuple(map(str, range(math.ceil(spec.resources.gpus))))


def _cpus(spec: JobSpec, ranks: Ranks) -> float:
    """This rank's part of the cores that the job has on each node."""
    return spec.resources.cpus / max(1, ranks.world_size // spec.resources.nodes)


if __name__ == "__main__":
    sys.exit(main())
