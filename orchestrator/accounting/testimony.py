"""What the witness said, kept: a Prometheus forgets, or ends with its cluster; a ledger does not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from orchestrator.accounting.energy import DeviceWindow
from orchestrator.accounting.witness import Witness
from workers.contract import Quality
from workers.home import Home

FILE_NAME = "witness.json"


def remember(home: Home, witness: Witness, windows: Sequence[DeviceWindow]) -> None:
    """Keep a figure that is known. A ledger that cannot be written is only read, which is no error."""
    if witness.energy_kwh is None or witness.disagreement_percent is None:
        return
    said = {
        "energy_kwh": witness.energy_kwh,
        "disagreement_percent": witness.disagreement_percent,
        "logged_mj": _logged_mj(windows),
        "quality": sorted(witness.quality),
    }
    with contextlib.suppress(OSError):
        folder = home.artifacts(witness.job_id)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE_NAME}"
        temporary.write_text(json.dumps(said), encoding="utf-8")
        temporary.replace(folder / FILE_NAME)


def recall(home: Home, job_id: str, windows: Sequence[DeviceWindow]) -> Witness | None:
    """What was said of these very books; ``None`` when nothing was, or the energy log has grown since."""
    try:
        said = json.loads((home.artifacts(job_id) / FILE_NAME).read_text(encoding="utf-8"))
        if said["logged_mj"] != _logged_mj(windows):
            return None
        return Witness(
            job_id=job_id,
            energy_kwh=float(said["energy_kwh"]),
            disagreement_percent=float(said["disagreement_percent"]),
            reason=None,
            quality=frozenset(map(Quality, said.get("quality", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _logged_mj(windows: Sequence[DeviceWindow]) -> int:
    return sum(window.energy_mj for window in windows)
