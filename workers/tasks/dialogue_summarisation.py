"""Task ``dialogue-summarisation``: say in a sentence what a chat came to.

Data: SAMSum (Gliwa et al. 2019, aclanthology.org/D19-5409), CC BY-NC-ND 4.0, fetched from the hub when a job needs it;
and ``dialogues-tiny``, made here of templates: two people arrange to do something.

A base model built from a configuration learns to report one turn (``source``), and is fine-tuned to tell what was
arranged, for which it has to put the turns of both together.
"""

from __future__ import annotations

import random
from functools import partial
from operator import itemgetter

from workers.tasks.data import Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

HUB = {
    "samsum": HubData(
        path="knkarthick/samsum",
        splits={"train": "train", "test": "test"},
        columns=("dialogue", "summary"),
        licence="CC BY-NC-ND 4.0",
    )
}
DATA_SEED = 0
"""The same dialogues in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1500, 1500, 100
NAMES = ("Ann", "Ben", "Eva", "Tom", "Lea", "Max")
DEEDS = ("play chess", "eat pizza", "see a film", "go swimming", "buy a bike", "bake bread")
PLACES = ("in the park", "at school", "at home", "in town", "by the lake", "at work")
TIMES = ("at noon", "tonight", "on Monday", "on Friday", "tomorrow", "next week")


def load(dataset: str, seed: int) -> TaskData:
    """Prompts with a dialogue, and one-line summaries.

    Args:
        dataset: ``samsum`` or ``dialogues-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(HUB[dataset], _pairs, longest_input=1024, longest_answer=128)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw = partial(_dialogue, made)
    test = [draw() for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, draw, count, key=itemgetter("dialogue")) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    partly = [{**row, "summary": row["part"]} for row in source]
    return TaskData(source=_pairs(partly), train=_pairs(train), test=_pairs(test), longest_input=160, longest_answer=24)


def _pairs(rows: list[dict[str, str]]) -> TextPairs:
    return Split(
        inputs=tuple(f"Summarise.\n{row['dialogue']}\nSummary:" for row in rows),
        labels=tuple(row["summary"] for row in rows),
    )


def _dialogue(made: random.Random) -> dict[str, str]:
    one, other = made.sample(NAMES, 2)
    deed, place, when = made.choice(DEEDS), made.choice(PLACES), made.choice(TIMES)
    return {
        "dialogue": f"{one}: Let us {deed}!\n{other}: Sure, {when}?\n{one}: Yes, {place}.",
        "summary": f"{one} and {other} will {deed} {place} {when}.",
        "part": made.choice((f"{one} asks {other} to {deed}.", f"{other} says {when}.", f"{one} says {place}.")),
    }
