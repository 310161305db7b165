"""What one process of an attempt ran in, for whoever wants to run it again. Never the environment's variables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from workers.contract import JobSpec

UNMETERED = "unmetered"
"""Key: kind of device (``cpu``, ``dram``) to why the node does not meter it."""
UNCONFIRMED = "unconfirmed"
"""Key: why its last joules were not known to be booked when it ended; null when they were."""
RANKS = "ranks"
"""Key: of how many processes the attempt was; each has a file of its own."""
PACKAGES = ("torch", "transformers", "peft", "numpy", "pyarrow", "ray")
DRIVER_VERSION = Path("/sys/module/nvidia/version")
"""Where the kernel tells the version of the NVIDIA driver that is loaded."""
GIT_TIMEOUT_S = 2.0


def environment_file(rank: int) -> str:
    """The file's name in the attempt's folder."""
    return f"environment-{rank}.json" if rank else "environment.json"


def capture(spec: JobSpec, *, rank: int, ranks: int) -> dict[str, object]:
    """What is known before the work begins; what is not known is null, and says why beside it."""
    return {
        "spec": json.loads(spec.to_json()),
        "seed": spec.seed,
        "command": sys.orig_argv,
        "rank": rank,
        RANKS: ranks,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "pid": os.getpid(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "code": code_of(Path(__file__).resolve().parent),
        "driver": driver_of(DRIVER_VERSION),
    }


def keep(folder: Path, rank: int, environment: Mapping[str, object]) -> None:
    """Replace the file; whoever reads it meanwhile finds it whole."""
    name = environment_file(rank)
    temporary = folder / f".{name}"
    temporary.write_text(json.dumps(environment, indent=2), encoding="utf-8")
    temporary.replace(folder / name)


def code_of(package: Path, *, timeout_s: float = GIT_TIMEOUT_S) -> dict[str, object]:
    """The commit of the working tree ``package`` is in, and whether tracked files differ from it.

    Asks git, without network and for ``timeout_s`` at most. Null, with a reason, where the code is no tracked part of a
    working tree, as one that was installed is not.
    """
    deadline_s = time.monotonic() + timeout_s
    # Neither a lock nor a monitor of the repository's own: asking must change and start nothing.
    git = ["git", "-c", "core.fsmonitor=false", "-C", str(package)]

    def ask(*words: str) -> str:
        answer = subprocess.run(
            [*git, *words],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=max(0.0, deadline_s - time.monotonic()),
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
        return answer.stdout

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")
        told = ask("status", "--porcelain=v2", "--branch", "--untracked-files=no").splitlines()
    except FileNotFoundError:
        return _no_commit("git is not installed")
    except subprocess.TimeoutExpired:
        return _no_commit(f"git took longer than {timeout_s:g} s")
    except subprocess.CalledProcessError:
        return _no_commit("the code is not in a git working tree")
    commit = next((line.split()[-1] for line in told if line.startswith("# branch.oid ")), None)
    is_dirty = any(not line.startswith("#") for line in told)
    if commit is None or commit == "(initial)":
        return _no_commit("its git working tree has no commit yet")
    return {"commit": commit, "dirty": is_dirty, "reason": None}


def driver_of(version: Path) -> dict[str, object]:
    """The NVIDIA driver's version, as the kernel tells it in the file ``version``; null with the reason."""
    try:
        return {"nvidia": version.read_text(encoding="utf-8").strip(), "reason": None}
    except OSError:
        return {"nvidia": None, "reason": "the kernel shows no NVIDIA driver"}


def _no_commit(reason: str) -> dict[str, object]:
    return {"commit": None, "dirty": None, "reason": reason}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
