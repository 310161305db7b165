"""What do training and answering a 0.5 B language model cost on a real GPU, and does the ledger agree with the board?

    python -m tests.bench.bench_gpu [--home FOLDER] [--small] [--save]
    python -m tests.bench.bench_gpu --report FOLDER... [--save]

The model has the shape of Qwen2.5-0.5B, and random weights: what it costs is real, what it scores means nothing. It is
fine-tuned under LoRA in bfloat16 (in batches of 64 and of 512) and over 4-bit weights, each is asked 1,000 times, and
two jobs share the board at last, all by ``python -m workers.attempt`` under one agent that meters from before the first
until after the last. Meanwhile the board's counter is read by a few lines of NVML that know nothing of ours: over each
step, what the ledger booked to jobs and to idle should be what the board counted.

The first form needs an NVIDIA GPU, ``torch``, ``transformers``, ``peft`` and ``bitsandbytes``, and leaves a ledger; the
second makes the results of some, on any machine. ``--meter simulated:H100`` tries the program without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import Store
from orchestrator.store.records import RunRecord
from tests.bench.environment import RESULTS, heading
from tests.bench.gpu_results import results, save, to_text
from tests.bench.nvml_look import Board, Watch
from tests.bench.rig import OurAgent, our_agent
from tests.driver.driver import ROOT
from workers.attempt import REASON_FILE
from workers.contract import JobSpec
from workers.home import Home
from workers.training.models import ModelInfo

MEASURED = "measured.json"
"""In the ledger's folder: what the board itself told."""
PATIENCE_S = 240.0
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "nvidia-ml-py")
QWEN = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
"""The configuration that Qwen2.5-0.5B was published with."""
SMALL = {**QWEN, "vocab_size": 2000, "hidden_size": 56, "num_hidden_layers": 2, "intermediate_size": 128}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done: optimiser steps, requests, and how many of them at once."""

    config: Mapping[str, object] = field(default_factory=lambda: QWEN)
    steps: int = 240
    batch: int = 64
    requests: int = 1000
    at_once: int = 16
    samples: int = 64


TRIAL = Size(config=SMALL, steps=6, batch=8, requests=16, at_once=8, samples=8)


def make_model(folder: Path, config: Mapping[str, object]) -> None:
    """A causal model of that shape, of weights drawn by a seed, in bfloat16 as such models are published."""
    import torch

    from workers.tasks import load_task
    from workers.training.families.tokenizing import tokenizer_for
    from workers.training.load import build_base

    info = ModelInfo(architecture="qwen2", config=config, lora_targets=(), source_epochs=0, family="text-generation")
    tokenizer = tokenizer_for(info, load_task("text-to-sql", None, 0), ends=False)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    build_base(info, seed=0, more=ids).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def steps_of(model: Path, size: Size) -> Mapping[str, Sequence[JobSpec]]:
    """What is done, by a name: jobs that run at the same time."""
    common = {
        "name": "gpu",
        "task": "text-to-sql",
        "dataset": "questions-tiny",
        "model": str(model),
        "evaluation": {"batch_size": 64, "max_samples": size.samples},
    }
    training = {"bf16": True, "epochs": 1000, "max_steps": size.steps, "batch_size": size.batch, "learning_rate": 2e-4}
    tuned = {**common, "adapter": {"method": "lora"}, "training": training}
    asked = {"requests": size.requests, "batch_size": size.at_once, "warmup": size.at_once}
    answering = {**common, "kind": "inference", "inference": asked}
    half = {**answering, "resources": {"gpus": 0.5}, "inference": {**asked, "requests": size.requests // 2}}
    quarter = {**half, "inference": {**asked, "requests": size.requests // 4}}
    wide = {**training, "max_steps": size.steps // 2, "batch_size": 8 * size.batch}
    jobs: Mapping[str, Sequence[Mapping[str, object]]] = {
        "lora-bf16": [{**tuned, "job_id": "lora-bf16"}],
        "lora-bf16-wide": [{**tuned, "job_id": "lora-bf16-wide", "training": wide}],
        "lora-4bit": [{**tuned, "job_id": "lora-4bit", "quantization": "4bit"}],
        "ask-bf16": [{**answering, "job_id": "ask-bf16"}],
        "ask-4bit": [{**answering, "job_id": "ask-4bit", "quantization": "4bit"}],
        "two share": [
            {**half, "job_id": "half-a"},
            {**quarter, "job_id": "half-b"},
        ],
    }
    return {name: [JobSpec.model_validate(spec) for spec in specs] for name, specs in jobs.items()}


def measure(home: Home, size: Size, meter: str, model: Path, only: Sequence[str]) -> None:
    """Do all of it; a job that fails is noted in the ledger, and the next is done."""
    board = Board() if meter in ("auto", "nvml") else None
    about = {
        **heading(None),
        "versions": {name: _version(name) for name in PACKAGES},
        "board": None if board is None else {**board.facts(), "counter_look_cpu_ms": board.look_cpu_ms()},
        "model": {"config": dict(size.config), "weights": "random, seed 0, bfloat16"},
        "truth": "a simulated board" if board is None else "the board's own counter, read by NVML",
    }
    steps = {name: specs for name, specs in steps_of(model, size).items() if not only or name in only}
    told: list[dict[str, object]] = []
    with contextlib.closing(Store(home.state_db)) as store, our_agent(os.environ, home.root, meter=meter) as agent:
        run = RunRecord(run_id="gpu", name="gpu", manifest="", submitted_ns=time.time_ns(), host="", pid=os.getpid())
        store.submit(run, [spec for specs in steps.values() for spec in specs])
        metering, began_s = psutil.Process(int(agent.info["pid"])), time.monotonic()
        for name, specs in steps.items():
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            before = None if board is None else asdict(board.at_edge())
            with _watched(board) as watch:
                _do(store, home, agent, specs)
            after = None if board is None else asdict(board.at_edge())
            told.append({"name": name, "before": before, "after": after, "seen": watch.told()})
            used = metering.cpu_times()
            about["agent_percent_of_a_core"] = round(100 * (used.user + used.system) / (time.monotonic() - began_s), 2)
            text = json.dumps({"about": about, "device": board and board.uuid, "steps": told}, indent=1)
            (home.root / MEASURED).write_text(text)


def _do(store: Store, home: Home, agent: OurAgent, specs: Sequence[JobSpec]) -> None:
    """The jobs, at the same time, each noted in the ledger as a controller would."""
    device = agent.info["devices"][0]
    running = []
    for spec in specs:
        number = store.start_attempt(
            spec.job_id, nodes=["bench"], accelerator=str(device["model"]), now_ns=time.time_ns()
        )
        running.append((spec, number, _spawn(home, agent, spec, number)))
    for spec, number, process in running:
        code, folder = _code_of(process), home.attempt_folder(spec.job_id, number)
        reason = _reason(folder, code)
        state = (AttemptState.FAILED, JobState.FAILED) if reason else (AttemptState.SUCCEEDED, JobState.SUCCEEDED)
        store.end_attempt(spec.job_id, number, state=state[0], reason=reason, then=state[1], now_ns=time.time_ns())
        print(f"  {spec.job_id}: {reason or 'done'}", flush=True)


def _spawn(home: Home, agent: OurAgent, spec: JobSpec, number: int) -> subprocess.Popen[bytes]:
    folder = home.attempt_folder(spec.job_id, number)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(spec.to_json())
    command = [sys.executable, "-m", "workers.attempt", str(folder / "job.json"), "--home", str(home.root)]
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [*command, "--attempt", str(number), "--agent", str(agent.info["socket"])],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _code_of(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


def _reason(folder: Path, code: int) -> str | None:
    """Why it failed; ``None``: it did not."""
    if code == 0:
        return None
    said = folder / REASON_FILE
    return said.read_text() if said.exists() else f"exit code {code}; see its log.txt"


@contextlib.contextmanager
def _watched(board: Board | None) -> Iterator[Watch]:
    if board is None:
        yield Watch()
    else:
        with board.watched() as watch:
            yield watch


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="folder to leave the ledger in (default: none is left)")
    parser.add_argument("--report", type=Path, nargs="+", help="measure nothing: ledgers that --home left")
    parser.add_argument("--small", action="store_true", help="a model and jobs of seconds, to try the program")
    parser.add_argument("--meter", default="nvml", help="nvml, or simulated:TYPE to try the program (default nvml)")
    parser.add_argument("--only", default="", help="names of steps, by comma (default all)")
    parser.add_argument("--save", type=Path, nargs="?", const=RESULTS, help="folder to write gpu.json, gpu.txt to")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folders: list[Path] = options.report or [options.home or Path(name) / "home"]
        if options.report is None:
            size, model = TRIAL if options.small else Size(), Path(name) / "model"
            make_model(model, size.config)
            measure(Home(folders[0]), size, options.meter, model, [one for one in options.only.split(",") if one])
        found = [results(Home(folder), json.loads((folder / MEASURED).read_text())) for folder in folders]
        print(to_text(found))
        if options.save is not None:
            save(found, options.save)


if __name__ == "__main__":
    main()
