"""Compiles the simulated driver's library with the system's compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml.c"


def build_library(folder: Path) -> Path:
    """``libnvidia-ml.so.1`` in ``folder``, which then goes to the front of ``LD_LIBRARY_PATH``."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", f"-Wl,-soname,{library.name}"]
    subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE)], check=True, timeout=120)
    return library
