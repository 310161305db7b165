"""Where the peers live, which they are, and on what machine: what a result must name."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import venv
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
VENV = HERE.parents[1] / ".bench-venv"
PEERS = ("zeus", "codecarbon", "carbontracker")
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
"""A proxy that nobody answers at: whatever a peer wants from the network fails at once."""


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made, with the pinned releases, if it is not there."""
    python, done = VENV / "bin/python", VENV / ".installed"
    wanted = (HERE / "requirements.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        venv.create(VENV, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        # codecarbon takes a machine for NVIDIA's if this can be run; the figures are then NVML's.
        smi = VENV / "bin/nvidia-smi"
        smi.write_text("#!/bin/sh\nexit 0\n")
        smi.chmod(0o755)
        done.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    """The releases that are really installed there."""
    names = (*PEERS, "nvidia-ml-py")
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    said = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return dict(json.loads(said.stdout))


def machine() -> dict[str, str]:
    """Processor, cores and interpreter; no names."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return {
        "cpu": found[1].strip() if found else platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def heading(python: Path | None) -> dict[str, object]:
    """Date, machine and peers of a result."""
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(),
        "peers": versions(python) if python else {},
        "truth": "a simulated driver (tests/driver), not a real board",
    }
