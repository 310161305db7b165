"""What is wrong with values that are each fine but do not go together, looked for in every combination of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.carbon.intensity import GREAT_BRITAIN, intensity_of
from orchestrator.manifest.fields import Finding, overlaps
from orchestrator.manifest.model import value_at
from orchestrator.manifest.sweep import Axes
from workers.contract import offload_problem
from workers.errors import unknown_name
from workers.tasks import TASKS, unscored
from workers.training.models import MODELS


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule over several fields.

    Attributes:
        fields: dotted paths it looks at; a breach is reported at the first of them that the manifest gives.
        breach: their values, in that order, to the sentence, or ``None`` when they go together.
    """

    fields: tuple[str, ...]
    breach: Callable[..., str | None]


def _finetune_adapts(method: object, kind: object) -> str | None:
    if kind == "finetune" and method == "none":
        return "a fine-tune needs adapter.method full or lora"
    return None


def _dataset_of_task(dataset: object, task: object) -> str | None:
    if dataset is None or task not in TASKS or TASKS[str(task)].has_dataset(str(dataset)):
        return None
    return unknown_name(f"data set of task {task}", str(dataset), TASKS[str(task)].datasets)


def _metric_of_task(metric: object, task: object) -> str | None:
    if metric is None or task not in TASKS or metric in TASKS[str(task)].metrics:
        return None
    return unknown_name(f"metric of task {task}", str(metric), TASKS[str(task)].metrics)


def _model_of_task(model: object, task: object) -> str | None:
    if model not in MODELS or task not in TASKS:
        return None
    given, families = MODELS[str(model)], frozenset(TASKS[str(task)].families)
    if not families.isdisjoint(given.families):
        return None
    able = ", ".join(sorted(name for name, info in MODELS.items() if not families.isdisjoint(info.families)))
    return f"{model} is a {given.family} model, which task {task} cannot use; choose one of the hub or {able}"


def _quantized_adapts(quantization: object, method: object) -> str | None:
    if quantization in ("8bit", "4bit") and method == "full":
        return f"quantization {quantization} cannot go with adapter.method full: set adapter.method lora"
    return None


OLD_TYPES = ("T4", "V100", "P100", "K80")
"""Accelerator types before Ampere, which only emulate bfloat16."""


def _types_compute_bf16(bf16: object, accelerators: object) -> str | None:
    if not bf16 or not isinstance(accelerators, list | tuple):
        return None
    old = [str(name) for name in accelerators if name in OLD_TYPES]
    if not old:
        return None
    return f"training.bf16 needs a GPU that computes in bfloat16, and {', '.join(old)} does not; remove one of them"


def _looks_are_for_stopping(eval_steps: object, patience: object) -> str | None:
    if eval_steps is not None and patience is None:
        return "training.eval_steps is for early stopping; give training.early_stopping_patience, or remove it"
    return None


def _micro_batches_have_samples(steps: object, batch_size: object) -> str | None:
    if isinstance(steps, int) and isinstance(batch_size, int) and steps > batch_size:
        return (
            f"training.batch_size {batch_size} cannot be split into training.gradient_accumulation_steps {steps}: "
            "it is the samples of a whole optimiser step; lower the one or raise the other"
        )
    return None


def _quantized_is_not_split(stage: object, quantization: object) -> str | None:
    if stage is not None and quantization in ("8bit", "4bit"):
        return f"training.deepspeed does not go with quantization {quantization}; remove one of them"
    return None


def _pretrained_is_trusted(remote_code: object, pickle: object, model: object) -> str | None:
    if (remote_code or pickle) and model in MODELS:
        return f"trust is for models of the hub or in a folder; {model} is built here, so remove it"
    return None


def _one_cap(percent: object, watts: object) -> str | None:
    if percent is None or watts is None:
        return None
    return "power: give cap_watts or cap_percent, not both"


def _zone_is_used(zone: object, intensity: object) -> str | None:
    if zone is not None and intensity in ("yearly", "uk"):
        return f"accounting.zone is not used with intensity {intensity}; remove it"
    if zone is None and intensity == "watttime":
        return "intensity watttime needs accounting.zone, a region as WattTime names it"
    return None


def _signal_is_asked(signal: object, intensity: object) -> str | None:
    if signal == "marginal" and intensity != "watttime":
        return "accounting.signal marginal is known to intensity watttime alone; remove it"
    return None


def _uk_is_british(region: object, intensity: object) -> str | None:
    if intensity == "uk" and region is not None and intensity_of(str(region)).country != GREAT_BRITAIN:
        return f"intensity uk is of Great Britain's grid, and region {region} is not on it"
    return None


def _base_of_a_finetune(trained_by: object, kind: object) -> str | None:
    if trained_by is not None and kind == "finetune":
        return "adapter.trained_by is for kinds evaluate and inference; a fine-tune starts from the base model"
    return None


def _baseline_of_a_finetune(baseline: object, kind: object) -> str | None:
    if baseline == "shared" and kind != "finetune":
        return f"evaluation.baseline shared is for fine-tunes, and kind {kind} has no baseline; remove it"
    return None


def _whole_gpus_in_gangs(gpus: object, nodes: object) -> str | None:
    if isinstance(gpus, float) and 0 < gpus < 1 and nodes != 1:
        return f"resources.gpus {gpus:g} on {nodes} nodes: a job of several nodes holds whole GPUs"
    return None


def _gpus_of_the_types(accelerators: object, gpus: object) -> str | None:
    if accelerators and gpus == 0:
        return "resources.accelerators chooses among types of GPU, and the job holds none; remove it, or gpus: 0"
    return None


RULES: tuple[Rule, ...] = (
    Rule(fields=("adapter.method", "kind"), breach=_finetune_adapts),
    Rule(fields=("task", "kind"), breach=unscored),
    Rule(fields=("adapter.trained_by", "kind"), breach=_base_of_a_finetune),
    Rule(fields=("evaluation.baseline", "kind"), breach=_baseline_of_a_finetune),
    Rule(fields=("resources.gpus", "resources.nodes"), breach=_whole_gpus_in_gangs),
    Rule(fields=("resources.accelerators", "resources.gpus"), breach=_gpus_of_the_types),
    Rule(fields=("model", "task"), breach=_model_of_task),
    Rule(fields=("quantization", "adapter.method"), breach=_quantized_adapts),
    Rule(fields=("trust.remote_code", "trust.pickle", "model"), breach=_pretrained_is_trusted),
    Rule(fields=("training.bf16", "resources.accelerators"), breach=_types_compute_bf16),
    Rule(fields=("training.eval_steps", "training.early_stopping_patience"), breach=_looks_are_for_stopping),
    Rule(fields=("training.gradient_accumulation_steps", "training.batch_size"), breach=_micro_batches_have_samples),
    Rule(fields=("training.deepspeed.zero_stage", "quantization"), breach=_quantized_is_not_split),
    Rule(fields=("training.deepspeed.offload", "training.deepspeed.zero_stage"), breach=offload_problem),
    Rule(fields=("dataset", "task"), breach=_dataset_of_task),
    Rule(fields=("evaluation.metric", "task"), breach=_metric_of_task),
    Rule(fields=("power.cap_percent", "power.cap_watts"), breach=_one_cap),
    Rule(fields=("accounting.zone", "accounting.intensity"), breach=_zone_is_used),
    Rule(fields=("accounting.signal", "accounting.intensity"), breach=_signal_is_asked),
    Rule(fields=("accounting.region", "accounting.intensity"), breach=_uk_is_british),
)


def rule_findings(body: Mapping[str, object], axes: Axes, already: list[Finding]) -> list[Finding]:
    """Breaches of ``RULES``, one for each value at fault, or one for a rule that only a combination breaks.

    A rule over a field that is already known to be wrong is left alone: its breach would be a consequence.
    """
    findings: list[Finding] = []
    for rule in RULES:
        paths = [tuple(path.split(".")) for path in rule.fields]
        known_wrong = any(overlaps(path, finding.path) for path in paths for finding in already)
        if not known_wrong and not any(path in axes.named - axes.values.keys() for path in rule.fields):
            findings += _breaches(rule, body, axes)
    return findings


def _breaches(rule: Rule, body: Mapping[str, object], axes: Axes) -> Iterator[Finding]:
    swept = [path for path in rule.fields if path in axes.values]
    for choice in itertools.product(*(axes.values[path] for path in swept)):
        chosen = {path: value for path, (_, value) in zip(swept, choice, strict=True)}
        values = [chosen[path] if path in chosen else value_at(body, path) for path in rule.fields]
        sentence = rule.breach(*values)
        if sentence is None:
            continue
        if len(swept) == 1:
            yield Finding(("sweep", swept[0], choice[0][0]), sentence)
        elif swept:
            case = ", ".join(f"{path} {value}" for path, value in chosen.items())
            yield Finding(("sweep",), f"{sentence} (with {case})")
            return
        else:
            yield Finding(_reported_at(rule, body), sentence)


def _reported_at(rule: Rule, body: Mapping[str, object]) -> tuple[str, ...]:
    paths = [tuple(path.split(".")) for path in rule.fields]
    return next((path for path in paths if _gives(body, path)), paths[0])


def _gives(body: object, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(body, Mapping) or key not in body:
            return False
        body = body[key]
    return True
