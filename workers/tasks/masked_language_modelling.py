"""Task ``masked-language-modelling``: which word was hidden in a text?

Data: WikiText-2 (Merity et al. 2016, arXiv 1609.07843), CC BY-SA 3.0 and GFDL; a part of C4 (Raffel et al. 2020, arXiv
1910.10683), ODC-BY; fetched when a job needs them; and ``animals-tiny``, made here. BookCorpus and OSCAR, which the
study used too, come with loading scripts, which are not run.

A base model built from a configuration learns what sound each animal makes (``source``), and is fine-tuned on texts
that also say where it lives and what its young are called.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import partial
from operator import itemgetter

from workers.tasks.data import MASK, Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, Rows, hub_data

HUB = {
    "wikitext-2": HubData(
        path="Salesforce/wikitext",
        config="wikitext-2-raw-v1",
        splits={"train": "train", "test": "test"},
        columns=("text",),
        licence="CC BY-SA 3.0, GFDL",
    ),
    "c4": HubData(
        path="allenai/c4",
        files={"train": "en/c4-train.00000-of-01024.json.gz", "validation": "en/c4-validation.00000-of-00008.json.gz"},
        splits={"train": "train[:20000]", "test": "validation[:2000]"},
        columns=("text",),
        licence="ODC-BY",
    ),
}
WORD = re.compile(r"\b[A-Za-z]{4,}\b")
"""A word that may be hidden: not an article, nor a number."""
FEWEST_WORDS = 5
"""A text of fewer is a heading."""
DATA_SEED = 0
"""The same words in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1200, 1500, 150
ANIMALS = {
    "dog": ("barks", "kennel", "puppy"),
    "cat": ("meows", "basket", "kitten"),
    "cow": ("moos", "meadow", "calf"),
    "horse": ("neighs", "stable", "foal"),
    "sheep": ("bleats", "pasture", "lamb"),
    "lion": ("roars", "savanna", "cub"),
    "duck": ("quacks", "pond", "duckling"),
    "owl": ("hoots", "forest", "owlet"),
}
"""Its sound, its home, its young."""
SENTENCES = ("The {animal} of {owner} {fact} {when} .", "{when} the {adjective} {animal} {fact} near {owner} .")
SOUND, HOME, YOUNG = "{0}", "sleeps in the {0}", "feeds her {0}"
OWNERS = ("Ann", "Ben", "Eva", "Tom", "Lea", "Max")
ADJECTIVES = ("old", "big", "white", "lazy", "happy")
TIMES = ("today", "at night", "in spring", "every morning")


def load(dataset: str, seed: int) -> TaskData:
    """Texts in which a word is ``MASK``, and that word.

    Args:
        dataset: ``wikitext-2``, ``c4`` or ``animals-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(HUB[dataset], hidden, longest_input=256)
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    early, late = (partial(_text, made, facts) for facts in ((SOUND,), (SOUND, HOME, YOUNG)))
    test = [late() for _ in range(TEST_SAMPLES)]
    return TaskData(
        source=_split(unlike(test, early, SOURCE_SAMPLES, key=itemgetter(0))),
        train=_split(unlike(test, late, TRAIN_SAMPLES, key=itemgetter(0))),
        test=_split(test),
        longest_input=64,
    )


def hidden(rows: Rows) -> TextPairs:
    """One word of each text, drawn among those that may be; texts too short, or that have none, are left out."""
    made, found = random.Random(DATA_SEED), []  # noqa: S311 - data, not a secret
    for text in (row["text"].strip() for row in rows):
        words = [] if MASK in text or len(text.split()) < FEWEST_WORDS else list(WORD.finditer(text))
        if words:
            chosen = made.choice(words)
            found.append((text[: chosen.start()] + MASK + text[chosen.end() :], chosen.group()))
    return _split(found)


def _split(rows: Sequence[tuple[str, str]]) -> TextPairs:
    return Split(inputs=tuple(text for text, _ in rows), labels=tuple(word for _, word in rows))


def _text(made: random.Random, facts: Sequence[str]) -> tuple[str, str]:
    animal, place = made.choice(tuple(ANIMALS)), made.randrange(len(facts))
    text = made.choice(SENTENCES).format(
        animal=animal,
        fact=facts[place].format(MASK),
        owner=made.choice(OWNERS),
        adjective=made.choice(ADJECTIVES),
        when=made.choice(TIMES),
    )
    return text, ANIMALS[animal][place]
