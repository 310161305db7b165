"""What do training and answering cost through us, beside what a person writes with transformers alone?

    python -m tests.bench.bench_training [--rounds N] [--steps N] [--save]

One process, one thread, the same model, weights, data and settings: a causal language model under LoRA. The peer
trains with transformers' ``Trainer`` and its collator, and answers with ``generate`` in a loop. Ours do so with
metering off, and with metering on: a node's agent in a process of its own, a lease, phases, and a metric log that is
written. All take turns, in another order each round, so that what disturbs the machine disturbs all. The ratio is
taken round by round.

All texts have equally many tokens, so that batches cost the same in whatever order they come.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import psutil
import torch
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from tests.bench.environment import RESULTS, heading
from tests.bench.figures import table
from workers.attempt import Options, own_agent
from workers.contract import Adapter, Phase, Power, Training
from workers.metric_log import MetricLog
from workers.session import Session
from workers.tasks.data import Split, TaskData
from workers.telemetry.client import AgentConnection, HeldLease
from workers.training import adapters, loop
from workers.training.examples import IGNORED, Examples
from workers.training.families import causal
from workers.training.families.tokenizing import tokenizer_for
from workers.training.models import ModelInfo
from workers.training.steps import OnStep, StepResult

BARE, OFF, ON = "transformers alone", "ours, metering off", "ours, metering on"
AIM = 1.02
"""Times what the peer takes."""
MODEL = ModelInfo(
    architecture="qwen2",
    config={
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "max_position_embeddings": 256,
    },
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    source_epochs=0,
    family="text-generation",
)
BATCH, ANSWERS = 16, 8
"""Samples of a step, and of a batch of answers."""
PROMPTS, LONGEST_ANSWER = 64, 24
TRAINING = Training(batch_size=BATCH, learning_rate=1e-3)
DEVICE = torch.device("cpu")
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "junco", "karst", "larch")
DATA_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one turn took.

    Attributes:
        wall_s: by the clock; ``cpu_s``: of this process, all threads.
        agent_cpu_s: of the agent's process, which may run on another core; 0 where there is none.
    """

    wall_s: float
    cpu_s: float
    agent_cpu_s: float = 0.0


Costs = Mapping[str, Sequence[Cost]]


class Way(Protocol):
    """One way to do the work."""

    def train(self, model: nn.Module, steps: int) -> None:
        """So many optimiser steps."""
        ...

    def answer(self, model: nn.Module, batches: int) -> None:
        """So many batches of prompts."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The model before any turn, and its data, as both sides take it."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    data: TaskData
    train: Examples
    test: Examples


def made(samples: int) -> Bench:
    """A model of random weights under a fresh LoRA, and so many samples to train on."""
    data = TaskData(
        source=None,
        train=split_of(samples, DATA_SEED),
        test=split_of(PROMPTS, DATA_SEED + 1),
        longest_answer=LONGEST_ANSWER,
    )
    base = causal.base(MODEL, data, seed=0, loading={})
    torch.manual_seed(0)
    return Bench(
        model=adapters.adapt(base.model, Adapter(method="lora"), MODEL),
        tokenizer=tokenizer_for(MODEL, data, ends=False),
        data=data,
        train=base.examples(data.train),
        test=base.examples(data.test),
    )


def split_of(samples: int, seed: int) -> Split[tuple[str, ...], tuple[str, ...]]:
    """Prompts and answers of the same words in other orders: all of equally many tokens."""
    chosen = random.Random(seed)

    def shuffled() -> str:
        return " ".join(chosen.sample(WORDS, len(WORDS)))

    return Split(
        inputs=tuple(f"Sort these words: {shuffled()} {shuffled()}." for _ in range(samples)),
        labels=tuple(f"Sorted: {shuffled()}." for _ in range(samples)),
    )


class Bare:
    """What a person writes who has transformers and no orchestrator."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench, self._folder = bench, folder
        pairs = zip(bench.data.train.inputs, bench.data.train.labels, strict=True)
        self.rows = [self._row(prompt, answer) for prompt, answer in pairs]

    def train(self, model: nn.Module, steps: int) -> None:
        arguments = TrainingArguments(
            output_dir=str(self._folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=TRAINING.learning_rate,
            max_grad_norm=0.0,  # ours does not clip
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        collate = DataCollatorForSeq2Seq(self._bench.tokenizer, padding=True)
        trainer = Trainer(model=model, args=arguments, train_dataset=self.rows, data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def answer(self, model: nn.Module, batches: int) -> None:
        tokenizer, prompts = self._bench.tokenizer, list(self._bench.data.test.inputs)
        config = GenerationConfig(
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model.eval()
        for batch in range(batches):
            first = batch * ANSWERS % PROMPTS
            asked = tokenizer(prompts[first : first + ANSWERS], padding=True, padding_side="left", return_tensors="pt")
            with torch.inference_mode():
                told = model.generate(  # type: ignore[operator]
                    input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], generation_config=config
                )
            tokenizer.batch_decode(told[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)

    def _row(self, prompt: str, answer: str) -> Mapping[str, Sequence[int]]:
        """Ids of both; the prompt's are no labels."""
        tokenizer = self._bench.tokenizer
        asked = tokenizer(prompt)["input_ids"]
        said = [*tokenizer(f" {answer}")["input_ids"], tokenizer.eos_token_id]
        return {"input_ids": [*asked, *said], "labels": [*[IGNORED] * len(asked), *said]}


class Unmetered:
    """Our loop, and nobody who is told of its steps."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def train(self, model: nn.Module, steps: int) -> None:
        self.fit(model, steps, lambda result: None)

    def answer(self, model: nn.Module, batches: int) -> None:
        self.predict(model, batches, lambda result: None)

    def fit(self, model: nn.Module, steps: int, on_step: OnStep) -> None:
        training = TRAINING.model_copy(update={"epochs": 10**6, "max_steps": steps})
        loop.fit(model, self._bench.train, training, seed=0, device=DEVICE, on_step=on_step)

    def predict(self, model: nn.Module, batches: int, on_step: OnStep) -> None:
        count = ANSWERS * batches
        loop.predict(model, self._bench.test, batch_size=ANSWERS, device=DEVICE, on_step=on_step, count=count)


class Metered:
    """The same under a lease of a node's agent, with phases and a metric log, as an attempt has them."""

    def __init__(self, bench: Bench, session: Session) -> None:
        self._plain, self._session = Unmetered(bench), session

    def train(self, model: nn.Module, steps: int) -> None:
        with self._session.phase(Phase.TRAIN):
            self._session.begin_work()
            self._plain.fit(model, steps, self._note)

    def answer(self, model: nn.Module, batches: int) -> None:
        with self._session.phase(Phase.INFERENCE):
            self._session.begin_work()
            self._plain.predict(model, batches, self._note)

    def _note(self, result: StepResult) -> None:
        self._session.step(
            step=result.step, steps=result.steps, samples=result.samples, loss=result.loss, tokens=result.tokens
        )


@contextlib.contextmanager
def metered(bench: Bench, folder: Path) -> Iterator[tuple[Metered, psutil.Process]]:
    """It, and the agent's process. The board is simulated and works at this host's pace."""
    options = Options(job=folder, home=folder, attempt=1, agent=None, devices=(), meter="simulated:H100")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with own_agent(options) as socket, AgentConnection(socket) as connection:
        (agent,) = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        lease = HeldLease(
            connection, job_id="bench", attempt=1, devices=["0"], cpus=1.0, phase=Phase.LOAD, power=Power()
        )
        with lease, MetricLog(folder / "metrics") as log:
            phases = (Phase.TRAIN, Phase.INFERENCE)
            yield Metered(bench, Session(lease=lease, log=log, folder=folder, phases=phases)), agent
            lease.close()


def measure(rounds: int, steps: int, batches: int) -> tuple[Costs, Costs]:
    """Costs of each way in each round: of training, and of answering."""
    bench = made(max(BATCH, steps * BATCH))
    training: dict[str, list[Cost]] = {BARE: [], OFF: [], ON: []}
    answering: dict[str, list[Cost]] = {BARE: [], OFF: [], ON: []}
    with tempfile.TemporaryDirectory() as name, metered(bench, Path(name)) as (ours, agent):
        ways: dict[str, Way] = {BARE: Bare(bench, Path(name)), OFF: Unmetered(bench), ON: ours}
        for way in ways.values():  # what is loaded or built the first time is nobody's
            way.train(copy.deepcopy(bench.model), 1)
            way.answer(copy.deepcopy(bench.model), 1)
        for turn in range(rounds):
            names = list(ways)
            for name_of in names[turn % len(names) :] + names[: turn % len(names)]:
                way = ways[name_of]
                training[name_of].append(_timed(way.train, copy.deepcopy(bench.model), steps, agent))
                answering[name_of].append(_timed(way.answer, copy.deepcopy(bench.model), batches, agent))
    return training, answering


def _timed(work: Callable[[nn.Module, int], None], model: nn.Module, count: int, agent: psutil.Process) -> Cost:
    agent_s, cpu_s, wall_s = _cpu_of(agent), time.process_time(), time.perf_counter()
    work(model, count)
    return Cost(
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
        agent_cpu_s=_cpu_of(agent) - agent_s,
    )


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def ratios(costs: Costs, name: str, figure: Callable[[Cost], float]) -> list[float]:
    """Of one way to the peer, round by round."""
    return [figure(own) / figure(bare) for own, bare in zip(costs[name], costs[BARE], strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def report(title: str, costs: Costs, count: int) -> str:
    """One table. The agent's part is of one core, while it ran."""
    rows = [
        [
            name,
            f"{1000 * statistics.median(cost.wall_s for cost in each) / count:.1f}",
            f"{1000 * statistics.median(cost.cpu_s for cost in each) / count:.1f}",
            spread(ratios(costs, name, lambda cost: cost.wall_s)),
            spread(ratios(costs, name, lambda cost: cost.cpu_s)),
            f"{100 * statistics.median(cost.agent_cpu_s / cost.wall_s for cost in each):.1f}" if name == ON else "-",
        ]
        for name, each in costs.items()
    ]
    columns = [title, "wall ms", "CPU ms", "x wall", "x CPU", "agent, % of a core"]
    return table(columns, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way (default 9)")
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of a turn (default 40)")
    parser.add_argument("--batches", type=int, default=12, help="batches of answers of a turn (default 12)")
    parser.add_argument(
        "--save", type=Path, nargs="?", const=RESULTS, help="folder to write training.txt to (results/)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    set_verbosity_error()  # type: ignore[no-untyped-call]
    disable_progress_bar()  # type: ignore[no-untyped-call]
    training, answering = measure(options.rounds, options.steps, options.batches)
    about = {
        **heading(None),
        "truth": "metered by an agent with a simulated board; the work is real, on the CPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    text = "\n\n".join(
        (
            f"{options.rounds} rounds, one thread; aim {AIM:g} times the peer; median (least-most) of the ratios",
            report(f"training, a step of {BATCH}", training, options.steps),
            report(f"answering, a batch of {ANSWERS}", answering, options.batches),
            json.dumps(about),
        )
    )
    print(text)
    if options.save is not None:
        options.save.mkdir(exist_ok=True)
        (options.save / "training.txt").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
