"""The records that cross the wire: what a job is, what a device said, and to whom its joules were booked.

Sections of a job (``Adapter``, ``Training``, ...) are validated wherever they enter (a manifest, a ``job.json``);
readings and entries are made by our own code, so they are plain frozen dataclasses and cost nothing to make.

Times are integers of nanoseconds since the Unix epoch, UTC (``*_ns``); energy is integer millijoules (``*_mj``).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pydantic
from pydantic import Field, Strict

from workers.errors import InputError
from workers.names import JOB_ID_PATTERN, NAME_PATTERN
from workers.section import Section, section_problems

INTENSITY_PATTERN = r"^(yearly|electricitymaps|watttime|uk|.+\.(csv|parquet))$"
"""Sources of carbon intensity by name; anything else is a file of the user's."""

ZONE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""A grid zone names a folder of the cache as well."""

DEADLINE_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})$"
"""RFC 3339, to the second, with the offset that tells when it is everywhere."""

Names = Annotated[tuple[str, ...], Strict(False)]
"""A list in YAML or JSON, a tuple here."""


class Adapter(Section):
    """How the model's weights are adapted."""

    method: Literal["none", "full", "lora"] = Field("none", description="none (evaluate as is), full, or lora")
    rank: int = Field(8, ge=1, description="LoRA rank r")
    alpha: float | None = Field(None, gt=0, description="LoRA scaling numerator; null means 2 x rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the LoRA path, 0 to 1")
    targets: Names | None = Field(
        None, min_length=1, description="module names LoRA is attached to; null means the model's own default"
    )
    trained_by: str | None = Field(
        None,
        description="evaluate and inference: the manifest (or job) whose fine-tuned weights are loaded; it is needed "
        "first. null means the base model",
    )


class DeepSpeed(Section):
    """How DeepSpeed splits a fine-tune over its ranks, or between GPU and host memory."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        2,
        description="what the ranks split instead of each holding all: 0 nothing, 1 the optimiser's state, 2 gradients "
        "as well, 3 weights as well",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what waits in host memory: nothing, the optimiser's state, or weights as well (stage 3)"
    )


def offload_problem(offload: object, zero_stage: object) -> str | None:
    """Why DeepSpeed cannot offload so much at a stage, in a sentence; ``None`` where it can."""
    if offload == "optimizer" and zero_stage == 0:
        return "training.deepspeed.offload optimizer needs zero_stage 1, 2 or 3; stage 0 splits no optimiser state"
    if offload == "all" and zero_stage != 3:
        return f"training.deepspeed.offload all needs zero_stage 3, which splits weights, not {zero_stage}"
    return None


class Training(Section):
    """The fine-tune loop. ``max_steps`` ends it earlier when given."""

    epochs: int = Field(1, ge=1, description="passes over the training split")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps at most; null means no limit")
    batch_size: int = Field(32, ge=1, description="samples per optimiser step")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    bf16: bool = Field(
        False, description="compute in bfloat16 by autocast; what is trained and its optimiser state stay in float32"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them: less memory, slower"
    )
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="forward and backward passes that batch_size is split into; the result is that of one"
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="looks at the loss of a held-out tenth of the training split, without a better one, after which "
        "training ends; the best weights are kept. null means all steps, on the whole split",
    )
    eval_steps: int | None = Field(
        None, ge=1, description="optimiser steps between two looks of early stopping; null means once an epoch"
    )
    deepspeed: DeepSpeed | None = Field(None, description="train with DeepSpeed's ZeRO; null means plain data parallel")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="optimiser steps between checkpoints; null means every five minutes"
    )


class Trust(Section):
    """What of a model that is not the registry's may run code on the node."""

    remote_code: bool = Field(False, description="run the Python code that comes with the model")
    pickle: bool = Field(False, description="read weights from a pickle where the model has no safetensors")


class ScoreEncoders(Section):
    """The models behind the scores of meaning: names on the hub (owner/name, or owner/name@revision), or folders.

    A score without one takes the published encoder where the job's model is of the hub, and is null elsewhere.
    """

    bert_score: str | None = Field(None, description="of BERTScore; null means FacebookAI/roberta-large")
    scibert_score: str | None = Field(
        None,
        description="of SciBERTScore; null means allenai/scibert_scivocab_uncased, as the hub made safetensors of it",
    )
    mover_score: str | None = Field(None, description="of MoverScore; null means distilbert/distilbert-base-uncased")


class Evaluation(Section):
    """How scores are taken, before and after training alike."""

    batch_size: int = Field(64, ge=1, description="samples per forward pass")
    max_samples: int | None = Field(None, ge=1, description="samples of the test split at most; null means all")
    metric: str | None = Field(None, description="the score of the ledger; null means the task's own")
    encoders: ScoreEncoders = Field(
        ScoreEncoders(), description="the models behind the scores of meaning, by score; null where one cannot be had"
    )
    baseline: Literal["own", "shared"] = Field(
        "own",
        description="own: each fine-tune scores its base model first; shared: one evaluate job does, for all jobs of "
        "the manifest with the same model, quantization, data and seed",
    )


class Inference(Section):
    """What is measured of inference: what 1,000 answers cost."""

    requests: int = Field(1000, ge=1, description="inferences that are counted, in each repeat")
    repeats: int = Field(1, ge=1, le=1000, description="times they are made and measured, one after another")
    batch_size: int = Field(1, ge=1, description="inferences per forward pass")
    warmup: int = Field(10, ge=0, description="inferences made first and not counted")


def _whole_or_a_part(gpus: int | float) -> int | float:
    """A job holds whole GPUs or a part of one; 2.0 is 2."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a whole number, or a part of one GPU, below 1")
    return int(gpus) if gpus == int(gpus) else gpus


class Resources(Section):
    """What a job holds while it runs: on each of ``nodes`` nodes, so much of each."""

    gpus: Annotated[int | float, pydantic.AfterValidator(_whole_or_a_part)] = Field(
        1, ge=0, description="GPUs on each node: whole ones, or a part of one (0.5), which it then shares"
    )
    nodes: int = Field(1, ge=1, le=1024, description="nodes, of one accelerator type, that it needs at once")
    labels: Mapping[str, str] = Field({}, description="labels its nodes must have, as `ray start --labels` gives them")
    accelerators: Names | Literal["each"] = Field(
        (),
        description="accelerator types in order of preference; empty: any; 'each': one job on every type there is",
    )
    cpus: float = Field(1.0, gt=0, description="CPU cores reserved on each node, and threads used")
    memory_gb: float | None = Field(None, gt=0, description="host memory on each node in GB; null means not reserved")


class Power(Section):
    """A power limit on the job's devices while it runs."""

    cap_watts: float | None = Field(None, gt=0, description="limit in watts")
    cap_percent: float | None = Field(None, gt=0, le=100, description="limit in percent of the device's default limit")


class Accounting(Section):
    """How the job's joules become grams."""

    region: str | None = Field(
        None,
        description="country (ISO 3166: USA or US), WORLD, or a cloud's region (aws:us-east-1, gcp:europe-west4, "
        "azure:westeurope); null means the world's average",
    )
    intensity: str = Field(
        "yearly",
        pattern=INTENSITY_PATTERN,
        description="where g/kWh come from: yearly (the region's figure), electricitymaps, watttime or uk (each "
        "hour's, over HTTP), or a CSV or Parquet file beside the manifest",
    )
    zone: str | None = Field(
        None,
        pattern=ZONE_PATTERN,
        description="grid zone as electricitymaps or watttime name it (US-CAL-CISO, CAISO_NORTH); null means the "
        "region's country",
    )
    signal: Literal["average", "marginal"] = Field(
        "average", description="what watttime is asked for: the grid's average emissions, or the marginal plant's"
    )
    pue: float | None = Field(None, ge=1, description="power usage effectiveness; null means the 2024 survey average")
    cpu_watts: float | None = Field(
        None,
        gt=0,
        description="mean watts the host's CPU draws for this job, for nodes whose CPU has no meter: modelled; "
        "null means unknown",
    )
    dram_watts: float | None = Field(
        None,
        gt=0,
        description="mean watts the host's memory draws for this job, for nodes whose DRAM has no meter: modelled; "
        "null means unknown",
    )
    team: str | None = Field(None, pattern=NAME_PATTERN, description="team the job is booked to in roll-ups")
    project: str | None = Field(None, pattern=NAME_PATTERN, description="project the job is booked to in roll-ups")
    cegi_scope: Literal["train", "all"] = Field("train", description="whose carbon CEGI counts: the train phase or all")
    cegi_gain: Literal["relative", "points"] = Field(
        "relative", description="gain in percent of the base, or in points"
    )


class Budget(Section):
    """What each job may cost; without a figure there is no limit."""

    energy_kwh: float | None = Field(None, gt=0, description="IT energy of all attempts, kWh; null means no limit")
    co2e_kg: float | None = Field(None, gt=0, description="operational CO2e, PUE included, kg; null means no limit")
    on_exceed: Literal["warn", "cap", "stop"] = Field(
        "warn", description="warn: say so in the run's output and in reports"
    )


class Schedule(Section):
    """When the job runs."""

    priority: int = Field(0, description="higher runs first, and may take the place of lower")
    preemptible: bool = Field(
        True, description="whether a job of higher priority may take its place; it goes on from its last checkpoint"
    )
    time_limit_s: float | None = Field(None, gt=0, description="seconds an attempt may run; null means no limit")
    deadline: str | None = Field(
        None,
        pattern=DEADLINE_PATTERN,
        description="when it is of no more use, with its offset from UTC (2026-12-01T18:00:00Z): a job that has not "
        "ended by then is stopped; null means never",
    )


class Retry(Section):
    """How often a job is tried again, and after which pause."""

    failures: int = Field(0, ge=0, le=10, description="further attempts after one that failed")
    losses: int = Field(
        10, ge=0, le=1000, description="further attempts after its node or worker was lost, or it was preempted"
    )
    backoff_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="seconds before it is tried again after a failure, or when it is lost a second time; "
        "doubled each time, an hour at most",
    )


Kind = Literal["finetune", "evaluate", "inference"]
Quantization = Literal["none", "8bit", "4bit"]


class JobSpec(Section):
    """One job, complete: what ``job.json`` holds and what an attempt runs.

    Only ``task`` and ``model`` are needed; everything else has a default.
    """

    job_id: str = Field("local", pattern=JOB_ID_PATTERN, description="unique in one ledger")
    name: str = Field("local", pattern=JOB_ID_PATTERN, description="the manifest's name")
    kind: Kind = Field("finetune", description="finetune, evaluate or inference")
    task: str = Field(description="a task of the registry")
    model: str = Field(description="a model of the registry, of the hub (owner/name), or a folder")
    dataset: str | None = Field(None, description="a data set of the task; null means the task's own")
    adapter: Adapter = Adapter()
    quantization: Quantization = Field("none", description="weights of the base model while it trains")
    trust: Trust = Trust()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    inference: Inference | None = None
    resources: Resources = Resources()
    power: Power = Power()
    budget: Budget = Budget()
    accounting: Accounting = Accounting()
    schedule: Schedule = Schedule()
    retry: Retry = Retry()
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of initialisation and order")
    needs: Names = Field((), description="ids of jobs that must have succeeded before it starts")
    baseline_job: str | None = Field(
        None, description="job that scored the base model for it; null means it does so itself"
    )
    adapter_job: str | None = Field(
        None, description="job whose fine-tuned weights are loaded; null means the base model"
    )

    @property
    def measured_inference(self) -> Inference | None:
        """What the job measures of inference: as ``inference`` says; silent, by the defaults where it is its kind."""
        return Inference() if self.inference is None and self.kind == "inference" else self.inference

    @classmethod
    def from_json(cls, text: str, *, source: str = "job.json") -> JobSpec:
        """Read a job.

        Raises:
            InputError: not JSON, or not a job; every problem is named with its path.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{source} is not JSON: {error}. Write one object with at least task and model."
            ) from error
        problems = section_problems(cls, data)
        if problems:
            listed = "\n".join(f"  {'.'.join(map(str, path)) or 'job'}: {message}" for path, message in problems)
            raise InputError(f"{source} cannot be used:\n{listed}")
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """The job as one line of JSON; ``from_json`` reads it back equal."""
        return self.model_dump_json()


class Phase(enum.StrEnum):
    """The stretches of an attempt that are booked apart, in the order they happen."""

    LOAD = "load"
    BASELINE = "baseline"
    TRAIN = "train"
    EVALUATE = "evaluate"
    INFERENCE = "inference"


class Method(enum.StrEnum):
    """How a joule was obtained, best first. A total's method is its weakest part's."""

    COUNTER = "counter"
    INTEGRATED = "integrated"
    MODELLED = "modelled"
    REPLAYED = "replayed"
    SIMULATED = "simulated"

    @property
    def weakness(self) -> int:
        """Rank from 0 (a hardware counter) up; the higher of two is the method of their sum."""
        return list(Method).index(self)


class Quality(enum.StrEnum):
    """What a reader should know of a figure."""

    GAP = "gap"
    RESET = "reset"
    STALE = "stale"
    SHARED = "shared"
    FALLBACK = "fallback"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One metered device of a node.

    Attributes:
        uuid: the key everywhere; never an index, which changes with the driver's mood.
        index: position among the node's devices of its kind; of a GPU, as job launchers (Ray, CUDA) name it.
        model: accelerator type (``H100``, ``T4``), as the placement labels spell it.
        kind: ``gpu``, ``cpu`` or ``dram``.
        method: how its energy is obtained.
        scope: ``module`` where its figures are those of the whole module it sits on, its CPU included (Grace Hopper).
        power_window_ms: what its power readings are averaged over; 0: its sensor's latest sample; ``None``: not known.
        gap_ms: readings further apart leave unknown what was drawn in between. It is longer for a counter that cannot
            have wrapped unseen than for a board whose power may have to be followed.
        count_every_ms: how far apart looks at its counter may be, edges apart, because they are dear; power is followed
            in between. 0: a look costs nothing.
        quality: what is to be known of every figure of it: ``shared`` where slices of it are used apart (MIG).
    """

    uuid: str
    index: int
    model: str
    kind: Literal["gpu", "cpu", "dram"] = "gpu"
    method: Method
    scope: Literal["board", "module"] = "board"
    power_window_ms: int | None = None
    gap_ms: int = 2000
    count_every_ms: int = 0
    quality: frozenset[Quality] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One look at a device. ``None`` means the device does not tell, never zero.

    Attributes:
        device: UUID.
        time_ns: when, ns since the epoch.
        energy_mj: cumulative hardware counter, mJ.
        power_mw: instantaneous power, mW.
        limit_mw: enforced power limit, mW.
        utilization: busy share of the device, 0 to 1.
    """

    device: str
    time_ns: int
    energy_mj: int | None
    power_mw: int | None
    limit_mw: int | None = None
    utilization: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One rank's hold on devices of a node, from ``opened_ns`` until the agent closes it.

    Attributes:
        rank: which process of the attempt; an attempt of one process is rank 0.
    """

    lease_id: str
    job_id: str
    attempt: int
    devices: tuple[str, ...]
    pid: int
    cpus: float
    opened_ns: int
    phase: Phase | None = None
    rank: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyEntry:
    """Joules of one device over one span, booked to one attempt and phase, or to idle (``job_id`` is ``None``).

    Attributes:
        share: the part of the device that was this account's over the span, 0 to 1.
        quality: what to know of the figure; empty is clean.
        witness_mj: what the power readings make of the same span and share, where the figure is a counter's; ``None``:
            there is no second opinion.
    """

    start_ns: int
    end_ns: int
    device: str
    model: str
    kind: str
    energy_mj: int
    job_id: str | None
    attempt: int | None
    phase: Phase | None
    share: float
    method: Method
    quality: frozenset[Quality] = field(default=frozenset())
    witness_mj: int | None = None
