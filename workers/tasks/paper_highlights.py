"""Task ``paper-highlights``: say in a few sentences what is new in a paper, from its abstract.

Data: MixSub (Rehman et al., arXiv 2501.15398), 19,785 papers of ScienceDirect, licence not stated, fetched from the hub
when a job needs it; a folder with ``train`` and ``test`` files (JSONL, CSV or Parquet) of the columns ``Abstract`` and
``Highlights``, such as CSPubSum (Collins et al. 2017, aclanthology.org/K17-1021), which is not on the hub with its
highlights; and ``highlights-tiny``, made here of templates.

A base model built from a configuration learns to report one statement (``source``), and is fine-tuned to tell the
method, what it is for and what it gained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

from workers.tasks.data import Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

COLUMNS = ("Abstract", "Highlights")
HUB = {
    "mixsub": HubData(
        path="TRnlp/MixSub",
        splits={"train": "train", "test": "test"},
        columns=COLUMNS,
        licence="not stated",
    )
}
DATA_SEED = 0
"""The same abstracts in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1500, 1500, 100
METHODS = ("Lynx", "Otter", "Heron", "Badger", "Falcon", "Marten")
KINDS = ("a sparse network", "a graph model", "a fast solver", "a new sensor", "a dual encoder")
AIMS = ("image search", "drug design", "grid control", "leaf counting", "crack detection", "speech coding")
DATA = ("six cities", "old maps", "lab samples", "river data", "crop photos")
GAINS = ("accuracy rises", "cost falls", "error halves", "speed doubles", "recall improves")


def load(dataset: str, seed: int) -> TaskData:
    """Prompts with an abstract, and highlights.

    Args:
        dataset: ``mixsub``, ``highlights-tiny`` or a folder; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's or the folder's data cannot be had.
    """
    del seed
    if dataset != "highlights-tiny":
        named = HUB.get(dataset) or folder_data(dataset)
        return hub_data(named, _pairs, longest_input=512, longest_answer=160)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw = partial(_paper, made)
    test = [draw() for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, draw, count, key=itemgetter("Abstract")) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    partly = [{**row, "Highlights": row["part"]} for row in source]
    return TaskData(source=_pairs(partly), train=_pairs(train), test=_pairs(test), longest_input=160, longest_answer=32)


def folder_data(folder: str) -> HubData:
    """The data set in a folder on the node: ``train`` and ``test`` files with the columns of ``COLUMNS``."""
    return HubData(path=folder, splits={"train": "train", "test": "test"}, columns=COLUMNS, licence="as its owner says")


def _pairs(rows: Sequence[Mapping[str, str]]) -> TextPairs:
    return Split(
        inputs=tuple(f"Abstract: {row['Abstract'].strip()}\nHighlights:" for row in rows),
        labels=tuple(row["Highlights"].strip() for row in rows),
    )


def _paper(made: random.Random) -> dict[str, str]:
    method, kind, aim = made.choice(METHODS), made.choice(KINDS), made.choice(AIMS)
    data, gain = made.choice(DATA), made.choice(GAINS)
    return {
        "Abstract": f"Work on {aim} is slow. We present {method}, {kind}. Tests on {data} show that {gain}.",
        "Highlights": f"{method} is {kind} for {aim}. On {data}, {gain}.",
        "part": made.choice((f"{aim} is slow.", f"{method} is {kind}.", f"Tests show that {gain}.")),
    }
