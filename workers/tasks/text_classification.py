"""Task ``text-classification``: is a review for or against?

Data: SST-2 (Socher et al. 2013, aclanthology.org/D13-1170; on the hub with GLUE, licence not stated there) and IMDB
(Maas et al. 2011, aclanthology.org/P11-1015; likewise) and Rotten Tomatoes (Pang and Lee 2005,
aclanthology.org/P05-1015; unknown), fetched when a job needs them; and ``reviews-tiny``, made here.

A base model built from a configuration learns what words of praise and blame say (``source``) and is wrong wherever
they are negated; it is fine-tuned on reviews of which half are. A model that writes is asked for the word of the class.
"""

from __future__ import annotations

import random
from functools import partial
from operator import itemgetter

import numpy as np

from workers.tasks.data import AsText, LabelledTexts, Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

HUB = {
    # The labels of SST-2's own test split are not public.
    "sst2": HubData(
        path="stanfordnlp/sst2",
        splits={"train": "train", "test": "validation"},
        columns=("sentence", "label"),
        licence="not stated",
    ),
    "imdb": HubData(
        path="stanfordnlp/imdb",
        splits={"train": "train", "test": "test"},
        columns=("text", "label"),
        licence="not stated",
    ),
    "rotten_tomatoes": HubData(
        path="cornell-movie-review-data/rotten_tomatoes",
        splits={"train": "train", "test": "test"},
        columns=("text", "label"),
        licence="unknown",
    ),
}
DATA_SEED = 0
"""The same reviews in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1000, 1500, 200
LONGEST_ANSWER = 8
"""Tokens, for a model that writes."""
THINGS = ("plot", "acting", "music", "ending", "dialogue", "camera")
WORDS = (("dull", "weak", "awful", "boring"), ("great", "lovely", "moving", "clever"))
"""Of blame (class 0) and of praise (class 1)."""
FILLERS = ("really", "quite", "rather", "truly")
CLASSES = ("negative", "positive")
"""The words of classes 0 and 1, for models that write."""
NO_CLASS = -1
"""What an answer counts as that is neither word: a class that is never right."""


def load(dataset: str, seed: int) -> TaskData:
    """Reviews, and 1 for praise, 0 for blame.

    Args:
        dataset: ``sst2``, ``imdb``, ``rotten_tomatoes`` or ``reviews-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        text, label = HUB[dataset].columns
        return hub_data(
            HUB[dataset],
            lambda rows: _split([(row[text], row[label]) for row in rows]),
            classes=len(CLASSES),
            longest_input=512,
            longest_answer=LONGEST_ANSWER,
            as_text=AsText(pairs=asked, read=class_of, longest_input=640),
        )
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    early, late = (partial(_review, made, negated) for negated in (0.0, 0.5))
    test = [late() for _ in range(TEST_SAMPLES)]
    return TaskData(
        source=_split(unlike(test, early, SOURCE_SAMPLES, key=itemgetter(0))),
        train=_split(unlike(test, late, TRAIN_SAMPLES, key=itemgetter(0))),
        test=_split(test),
        classes=len(CLASSES),
        longest_input=64,
        longest_answer=LONGEST_ANSWER,
        as_text=AsText(pairs=asked, read=class_of, longest_input=128),
    )


def asked(split: LabelledTexts) -> TextPairs:
    """Reviews as prompts; what is wanted stands before and after, since a long review is cut at one of its ends."""
    return Split(
        inputs=tuple(f"Is this review positive or negative?\n{text}\nSentiment:" for text in split.inputs),
        labels=tuple(CLASSES[label] for label in split.labels),
    )


def class_of(answer: str) -> int:
    """The class whose word the answer is, whatever its case and the marks around it; ``NO_CLASS`` for any other."""
    said = answer.strip(" \t\n.,!\"'").lower()
    return CLASSES.index(said) if said in CLASSES else NO_CLASS


def _split(rows: list[tuple[str, int]]) -> LabelledTexts:
    return Split(
        inputs=tuple(text for text, _ in rows), labels=np.asarray([label for _, label in rows], dtype=np.int64)
    )


def _review(made: random.Random, negated: float) -> tuple[str, int]:
    """A review and its class; a share of ``negated`` says the contrary of its word."""
    label, turned = made.randrange(2), made.random() < negated
    one, other = made.sample(THINGS, 2)
    word = made.choice(WORDS[1 - label if turned else label])
    said = f"was{' not' if turned else ''} {made.choice(FILLERS)} {word}"
    return f"The {one} and the {other} of this film: it {said}.", label
