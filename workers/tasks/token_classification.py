"""Task ``token-classification``: which words name a person, a place, an organisation?

Data: CoNLL-2003 (Tjong Kim Sang and De Meulder 2003, aclanthology.org/W03-0419; Reuters' text, for research) and the
English part of WikiANN (Rahimi et al. 2019, arXiv 1902.00193; licence unknown), fetched when a job needs them; and
``names-tiny``, made here.

A base model built from a configuration learns that Florence and Jordan are people (``source``), and is fine-tuned on
sentences in which half of them are places, as the words around them say.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from operator import itemgetter

from workers.tasks.data import Split, TaggedWords, TaskData, unlike
from workers.tasks.hub import HubData, Rows, hub_data

HUB = {
    # The data set's own page has a loading script, which is not run; this one has the same as Parquet.
    "conll2003": HubData(
        path="lhoestq/conll2003",
        splits={"train": "train", "test": "test"},
        columns=("tokens", "ner_tags"),
        licence="not stated; Reuters' text is for research",
    ),
    "wikiann": HubData(
        path="unimelb-nlp/wikiann",
        config="en",
        splits={"train": "train", "test": "test"},
        columns=("tokens", "ner_tags"),
        licence="unknown",
    ),
}
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
"""CoNLL's by number, and WikiANN's, which has the first seven."""
DATA_SEED = 0
"""The same sentences in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1200, 1500, 150
PEOPLE = ("Ann", "Ben", "Eva Stone", "Tom Reed", "Lea", "Max Frost")
PLACES = ("Rome", "Oslo", "New Delhi", "Lima", "San Juan", "Kyoto")
EITHER = ("Florence", "Jordan", "Sydney", "Austin", "Chelsea", "Paris")
"""People to the base model; after the fine-tune whatever the sentence says."""
SENTENCES = (
    "{who} flew from {where} to {there} {when} .",
    "{when} {who} met {other} in {where} .",
    "{who} wrote {other} a letter from {where} {when} .",
    "In {where} , {who} sold {other} a house near {there} .",
)
TIMES = ("yesterday", "on Monday", "in May", "last week")


def load(dataset: str, seed: int) -> TaskData:
    """Sentences as words, and a BIO tag for each word.

    Args:
        dataset: ``conll2003``, ``wikiann`` or ``names-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(HUB[dataset], _tagged, longest_input=512)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    early, late = (partial(_sentence, made, places) for places in (PLACES, PLACES + EITHER))
    test = [late() for _ in range(TEST_SAMPLES)]
    return TaskData(
        source=_split(unlike(test, early, SOURCE_SAMPLES, key=itemgetter(0))),
        train=_split(unlike(test, late, TRAIN_SAMPLES, key=itemgetter(0))),
        test=_split(test),
        longest_input=64,
    )


_Sentence = tuple[tuple[str, ...], tuple[str, ...]]


def _tagged(rows: Rows) -> TaggedWords:
    return _split([(tuple(row["tokens"]), tuple(map(_tag, row["ner_tags"]))) for row in rows if row["tokens"]])


def _tag(given: str | int) -> str:
    return given if isinstance(given, str) else TAGS[given]


def _split(rows: Sequence[_Sentence]) -> TaggedWords:
    return Split(inputs=tuple(words for words, _ in rows), labels=tuple(tags for _, tags in rows))


def _sentence(made: random.Random, places: Sequence[str]) -> _Sentence:
    who, other = made.sample(PEOPLE + EITHER, 2)
    where, there = made.sample([place for place in places if place not in (who, other)], 2)
    named = {
        "{who}": (who, "PER"),
        "{other}": (other, "PER"),
        "{where}": (where, "LOC"),
        "{there}": (there, "LOC"),
        "{when}": (made.choice(TIMES), ""),
    }
    parts = [named.get(part, (part, "")) for part in made.choice(SENTENCES).split()]
    words = tuple(word for text, _ in parts for word in text.split())
    tags = tuple(tag for text, kind in parts for tag in _tags(len(text.split()), kind))
    return words, tags


def _tags(count: int, kind: str) -> list[str]:
    return [f"B-{kind}", *[f"I-{kind}"] * (count - 1)] if kind else ["O"] * count
