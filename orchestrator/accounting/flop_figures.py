"""How many operations a phase did, how fast, and how much of the accelerator's peak that is. Pure but for one table.

What attempts log are operations of the hardware (``workers.training.flops``), so what comes of them is hardware FLOPs
utilisation (HFU); without gradient checkpointing that is model FLOPs utilisation (MFU) as well, padding included.
"""

from __future__ import annotations

import csv
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.accounting.energy import held_s, windows
from orchestrator.accounting.evidence import Evidence
from orchestrator.accounting.phases import is_count, total_of
from orchestrator.accounting.unknown import Unknown, known
from workers.contract import EnergyEntry, Method, Phase
from workers.metric_log import FLOPS, FLOPS_PREFIX, SAMPLES, TOKENS, MetricSample
from workers.units import NS_PER_S

COUNTED = (Phase.TRAIN, Phase.INFERENCE)
"""The phases whose operations attempts count."""
WHY_NO_MFU: Mapping[Method, str] = {
    Method.SIMULATED: "the accelerator is simulated; its work was done by the CPU",
    Method.REPLAYED: "the accelerator's readings are replayed; its work was done elsewhere",
}


def flop_figures(evidence: Evidence, phase: Phase, booked: Sequence[EnergyEntry]) -> dict[str, object]:
    """``flops``, ``flops_per_second`` of each device, and ``hfu`` and ``mfu`` (0 to 1) of a phase over the chain.

    Args:
        evidence: of the job.
        phase: of it.
        booked: energy entries of that phase, which tell how long it held its devices.
    """
    counted = _counted(evidence, phase)
    if isinstance(counted, Unknown):
        return dict.fromkeys(("flops", "flops_per_second", "hfu", "mfu"), counted)
    device_s = _device_seconds(evidence, phase, booked)
    total = sum(counted.values())
    hfu = _utilisation(evidence, counted, device_s, booked)
    again = phase is Phase.TRAIN and evidence.job.spec.training.gradient_checkpointing
    return {
        "flops": total,
        "flops_per_second": device_s if isinstance(device_s, Unknown) else total / device_s,
        "hfu": hfu,
        "mfu": Unknown("gradient checkpointing computes activations again, which hfu counts") if again else hfu,
    }


def peak_flops(accelerator: str, number_format: str) -> float | None:
    """FLOP/s of one device at its best, dense (without sparsity), by its maker; ``None``: not known here.

    ``float32`` is that of the ordinary cores: where torch may use TF32 (convolutions, unless told otherwise) the
    tensor cores are faster. A type that is sold in several forms has the peak of its fastest, by ``source``: an H100
    or V100 on PCIe has less.
    """
    return _peaks().get((accelerator, number_format))


def _utilisation(
    evidence: Evidence, counted: Mapping[str, float], device_s: float | Unknown, booked: Sequence[EnergyEntry]
) -> float | Unknown:
    """Seconds that the operations would take at the peak of their formats, over the seconds they took."""
    if isinstance(device_s, Unknown):
        return device_s
    for method, reason in WHY_NO_MFU.items():
        if any(entry.kind == "gpu" and entry.method is method for entry in booked):
            return Unknown(reason)
    types = {attempt.accelerator for attempt in evidence.job.attempts if attempt.number in evidence.chain}
    if len(types) > 1:
        return Unknown("its attempts ran on different accelerator types")
    (accelerator,) = types
    if accelerator is None:
        return Unknown("it ran on no accelerator of a known type")
    best_s = 0.0
    for number_format, count in counted.items():
        peak = peak_flops(accelerator, number_format)
        if peak is None:
            return Unknown(f"no peak of {accelerator} in {number_format} is known here")
        best_s += count / peak
    return best_s / device_s


def _device_seconds(evidence: Evidence, phase: Phase, booked: Sequence[EnergyEntry]) -> float | Unknown:
    """How long each GPU was held, added up; a job without GPUs has the one host."""
    held = windows(entry for entry in booked if entry.kind == "gpu")
    if held or evidence.job.spec.resources.gpus:
        seconds = sum(window.end_ns - window.start_ns for window in held) / NS_PER_S
    else:
        seconds = held_s(windows(booked)) or evidence.lasted_s(phase)
    return known(seconds or None, "how long it held its devices is not known: no energy was booked to them")


def _counted(evidence: Evidence, phase: Phase) -> dict[str, float] | Unknown:
    """Operations by number format over the chain.

    An attempt that was cut short logged none; its steps are taken to be as those of the attempts that did.
    """
    found: Counter[str] = Counter()
    told = everything = 0.0
    for samples, _ in evidence.chain_logs:
        units = _units(samples, phase)
        own = _by_format(samples, phase)
        everything += units
        told += units if own else 0
        for name, count in own.items():
            found[name] += count  # type: ignore[assignment] # a float, which adds up as well
    if not found:
        return Unknown(_why_none(evidence, phase))
    if not all(is_count(value) for value in (*found.values(), told, everything)) or not told:
        return Unknown("what was logged as operations is no count")
    if told == everything:
        return dict(found)
    return {name: count * everything / told for name, count in found.items()}


def _by_format(samples: Sequence[MetricSample], phase: Phase) -> dict[str, float]:
    """What an attempt logged of a phase, all ranks."""
    names = dict.fromkeys(row.name for row in samples if row.name.startswith(FLOPS_PREFIX) and row.phase is phase)
    return {name.removeprefix(FLOPS_PREFIX): total_of(samples, name, phase) or 0.0 for name in names}


def _units(samples: Sequence[MetricSample], phase: Phase) -> float:
    """What operations grow with: tokens, else samples."""
    return total_of(samples, TOKENS, phase) or total_of(samples, SAMPLES, phase) or 0.0


def _why_none(evidence: Evidence, phase: Phase) -> str:
    spec = evidence.job.spec
    if phase not in COUNTED:
        return f"operations of the {phase} phase are not counted"
    if spec.quantization != "none":
        return "operations of quantised layers are not counted"
    if phase is Phase.TRAIN and spec.training.deepspeed is not None:
        return "operations of a model that DeepSpeed splits are not counted"
    if phase is Phase.INFERENCE and spec.measured_inference is not None and spec.measured_inference.warmup == 0:
        return "operations are counted in the warm-up, and there was none (inference.warmup: 0)"
    return evidence.unlogged(f"{FLOPS} of the {phase} phase").reason


@functools.cache
def _peaks() -> Mapping[tuple[str, str], float]:
    with (Path(__file__).parent / "peak_flops.csv").open(encoding="utf-8", newline="") as file:
        return {(row["accelerator"], row["format"]): float(row["tflops"]) * 1e12 for row in csv.DictReader(file)}
