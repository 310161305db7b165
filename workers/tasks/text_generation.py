"""Task ``text-generation``: go on with a text.

Data, fetched from the hub when a job needs it: WikiText-2 (Merity et al., arXiv 1609.07843), CC BY-SA 3.0 and GFDL;
BookCorpus (Zhu et al. 2015, arXiv 1506.06724), licence unknown; English of OSCAR (Ortiz Suarez et al. 2019,
oscar-project.org), CC0 1.0, as ``oscar-small`` holds it; and ``errands-tiny``, made here of templates.

A text of the hub is cut after ``PROMPT_WORDS`` words, and what a model writes is compared with the ``NEXT_WORDS`` that
follow. How likely it finds those, its perplexity, is a language model's own score: many ways to go on are right.

A base model built from a configuration learns stories in which some thing bought is unpacked (``source``), and is
fine-tuned on those in which all are, the last one first.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter

from workers.tasks.data import Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, hub_data

PARQUET = "refs/convert/parquet"
"""The hub's own conversion of a data set whose main branch is a script, which is never run."""
HUB = {
    "wikitext": HubData(
        path="Salesforce/wikitext",
        config="wikitext-2-raw-v1",
        splits={"train": "train", "test": "test"},
        columns=("text",),
        licence="CC BY-SA 3.0 and GFDL",
    ),
    "bookcorpus": HubData(
        path="bookcorpus/bookcorpus",
        revision=PARQUET,
        splits={"train": "train[:500000]", "test": "train[-50000:]"},
        columns=("text",),
        licence="unknown",
    ),
    "oscar": HubData(
        path="nthngdy/oscar-small",
        revision=PARQUET,
        folder="unshuffled_deduplicated_en",
        splits={"train": "train[:50000]", "test": "train[-5000:]"},
        columns=("text",),
        licence="CC0 1.0",
    ),
}
PROMPT_WORDS, NEXT_WORDS = 64, 32
"""A paragraph to begin with, and about 45 tokens to write."""
DATA_SEED = 0
"""The same stories in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 800, 1500, 100
NAMES = ("Ann", "Ben", "Eva", "Tom", "Lea", "Max")
SHOPS = ("market", "harbour", "village", "station")
THINGS = ("apple", "lamp", "rope", "kettle", "map", "drum", "scarf", "clock")


def load(dataset: str, seed: int) -> TaskData:
    """Beginnings of texts, and how they go on.

    Args:
        dataset: ``wikitext``, ``bookcorpus``, ``oscar`` or ``errands-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(
            HUB[dataset],
            lambda rows: _split(passages(row["text"] for row in rows)),
            longest_input=256,
            longest_answer=64,
        )
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    draw = partial(_story, made)
    test = [draw() for _ in range(TEST_SAMPLES)]
    source, train = (unlike(test, draw, count, key=itemgetter(0)) for count in (SOURCE_SAMPLES, TRAIN_SAMPLES))
    return TaskData(
        source=_split([(beginning, plain) for beginning, plain, _ in source]),
        train=_split([(beginning, ending) for beginning, _, ending in train]),
        test=_split([(beginning, ending) for beginning, _, ending in test]),
        longest_input=96,
        longest_answer=32,
    )


def passages(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each the next ``PROMPT_WORDS`` words and the ``NEXT_WORDS`` after them; what is left of a text is dropped.

    Texts that are too short, as sentences are, are put together with those that follow.
    """
    words: list[str] = []
    for text in texts:
        words += text.split()
        if len(words) >= PROMPT_WORDS + NEXT_WORDS:
            yield " ".join(words[:PROMPT_WORDS]), " ".join(words[PROMPT_WORDS : PROMPT_WORDS + NEXT_WORDS])
            words = []


def _split(pairs: Iterable[Sequence[str]]) -> TextPairs:
    rows = list(pairs)
    return Split(inputs=tuple(row[0] for row in rows), labels=tuple(row[1] for row in rows))


def _story(made: random.Random) -> tuple[str, str, str]:
    """Its beginning, how the source tells its end, and how it is to be told."""
    name, shop, things = made.choice(NAMES), made.choice(SHOPS), made.sample(THINGS, 3)
    one, two, three = things
    return (
        f"{name} went to the {shop} and bought a {one}, a {two} and a {three}. At home",
        f"{name} unpacked the {made.choice(things)} first.",
        f"{name} unpacked the {three}, then the {two} and then the {one}.",
    )
