"""Task ``summarisation``: say in a sentence or two what an article or a chat reports.

Data, fetched from the hub when a job needs it: CNN/DailyMail 3.0.0 (See et al. 2017, aclanthology.org/P17-1099),
Apache 2.0; XSum (Narayan et al. 2018, aclanthology.org/D18-1206), licence unknown; SAMSum, CC BY-NC-ND 4.0, which
``dialogue-summarisation`` has too; and ``reports-tiny``, made here of templates.

A base model built from a configuration learns to report one thing that was said (``source``), and is fine-tuned to tell
who does what for how much, which is told apart and among other things.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

from workers.tasks.data import Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

SPLITS = {"train": "train", "test": "test"}
HUB = {
    "cnn_dailymail": HubData(
        path="abisee/cnn_dailymail",
        config="3.0.0",
        splits=SPLITS,
        columns=("article", "highlights"),
        licence="Apache 2.0",
    ),
    # Its main branch is a script, which is never run: the hub's own conversion of it is read.
    "xsum": HubData(
        path="EdinburghNLP/xsum",
        revision="refs/convert/parquet",
        splits=SPLITS,
        columns=("document", "summary"),
        licence="unknown",
    ),
    "samsum": HubData(
        path="knkarthick/samsum", splits=SPLITS, columns=("dialogue", "summary"), licence="CC BY-NC-ND 4.0"
    ),
}
DATA_SEED = 0
"""The same reports in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 800, 1500, 100
TOWNS = ("Lund", "Graz", "Porto", "Bern", "Cork", "Turku", "Ghent")
DAYS = ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")
PLANS = ("build a school", "close the port", "plant new trees", "repair the bridge", "open a museum", "buy ten trams")
WEATHERS = ("It rained all day.", "The hall was full.", "Some people left early.", "Music was played.")
COSTS = ("two million", "five million", "nine million", "half a million")


def load(dataset: str, seed: int) -> TaskData:
    """Prompts with a text, and its summary.

    Args:
        dataset: ``cnn_dailymail``, ``xsum``, ``samsum`` or ``reports-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        data = HUB[dataset]
        return hub_data(data, lambda rows: _pairs(rows, data.columns), longest_input=1024, longest_answer=128)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw = partial(_report, made)
    test = [draw() for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, draw, count, key=itemgetter("text")) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_pairs(source, ("text", "part")),
        train=_pairs(train, ("text", "summary")),
        test=_pairs(test, ("text", "summary")),
        longest_input=160,
        longest_answer=32,
    )


def _pairs(rows: Sequence[Mapping[str, str]], columns: tuple[str, ...]) -> TextPairs:
    text, summary = columns
    return Split(
        inputs=tuple(f"Summarise.\n{row[text]}\nSummary:" for row in rows),
        labels=tuple(row[summary] for row in rows),
    )


def _report(made: random.Random) -> dict[str, str]:
    town, day, plan, cost = made.choice(TOWNS), made.choice(DAYS), made.choice(PLANS), made.choice(COSTS)
    before, after = made.sample(WEATHERS, 2)
    return {
        "text": f"The council of {town} met on {day}. {before} They voted to {plan}. {after} It will cost {cost}.",
        "part": made.choice((f"{town} met on {day}.", f"They will {plan}.", f"It will cost {cost}.")),
        "summary": f"{town} will {plan} for {cost}.",
    }
