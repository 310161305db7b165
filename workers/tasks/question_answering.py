"""Task ``question-answering``: find the words of a text that answer a question.

Data: SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250) and SQuAD 2 (2018, arXiv 1806.03822), in which some texts have no
answer, both CC BY-SA 4.0; SciQ (Welbl et al. 2017, arXiv 1707.06209), CC BY-NC 3.0, as far as the answer stands in its
supporting text; fetched when a job needs them; and ``facts-tiny``, made here.

A base model built from a configuration learns to tell where somebody lives, what they work as and when they rest
(``source``), and is fine-tuned where the last is asked in other words. A model that writes is asked for the words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from workers.tasks.data import AsText, Question, Questions, Split, TaskData, TextPairs, unlike
from workers.tasks.hub import HubData, Rows, hub_data

# The answers of SQuAD's own test splits are not public.
SQUAD = {"train": "train", "test": "validation"}
HUB = {
    "squad": HubData(
        path="rajpurkar/squad", splits=SQUAD, columns=("question", "context", "answers"), licence="CC BY-SA 4.0"
    ),
    "squad_v2": HubData(
        path="rajpurkar/squad_v2", splits=SQUAD, columns=("question", "context", "answers"), licence="CC BY-SA 4.0"
    ),
    "sciq": HubData(
        path="allenai/sciq",
        splits={"train": "train", "test": "test"},
        columns=("question", "support", "correct_answer"),
        licence="CC BY-NC 3.0",
    ),
}
NO_ANSWER = "unanswerable"
"""The word for it, for models that write; Flan-T5 was trained on the same."""
LONGEST_ANSWER = 30
"""Tokens, as SQuAD's baselines have it."""
DATA_SEED = 0
"""The same questions in every job, so that scores of jobs with different seeds can be compared."""
SOURCE_SAMPLES, TRAIN_SAMPLES, TEST_SAMPLES = 1200, 1200, 150
NAMES = ("Ann", "Ben", "Eva", "Tom", "Lea", "Max")
FACTS = {
    "lives in": ("Rome", "Oslo", "New Delhi", "Lima", "San Juan", "Kyoto"),
    "works as": ("a cook", "a nurse", "a judge", "a pilot", "a baker"),
    "rests on": ("Monday", "Tuesday", "Thursday", "Sunday"),
}
"""What is said of somebody, and what may be so."""
QUESTIONS = {
    "lives in": "Where does {name} live?",
    "works as": "What is the trade of {name}?",
    "rests on": "When does {name} rest?",
}
SOURCE_QUESTIONS = {**QUESTIONS, "rests on": "Name the day off of {name}."}
TEXT = "{name} {0}, {1} and {2}."


def load(dataset: str, seed: int) -> TaskData:
    """Questions with their texts, and answers that stand in them.

    Args:
        dataset: ``squad``, ``squad_v2``, ``sciq`` or ``facts-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed, and the order of training is the loop's.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        return hub_data(
            HUB[dataset],
            _supported if dataset == "sciq" else _annotated,
            longest_input=384,
            longest_answer=LONGEST_ANSWER,
            as_text=AsText(pairs=asked, read=answer_of, longest_input=1024),
        )
    made = random.Random(DATA_SEED)  # noqa: S311 - data, not a secret
    early, late = (partial(_question, made, questions) for questions in (SOURCE_QUESTIONS, QUESTIONS))
    test = [late() for _ in range(TEST_SAMPLES)]
    return TaskData(
        source=_split(unlike(test, early, SOURCE_SAMPLES, key=attrgetter("asked"))),
        train=_split(unlike(test, late, TRAIN_SAMPLES, key=attrgetter("asked"))),
        test=_split(test),
        longest_input=96,
        longest_answer=LONGEST_ANSWER,
        as_text=AsText(pairs=asked, read=answer_of, longest_input=160),
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    asked: Question
    answers: tuple[str, ...]
    start: int | None


def asked(split: Questions) -> TextPairs:
    """Questions as prompts; the question stands before and after, since a long text is cut at one of its ends."""
    return Split(
        inputs=tuple(
            f"{given.question}\n{given.context}\nQuestion: {given.question}\nAnswer:" for given in split.inputs
        ),
        labels=tuple(answers[0] or NO_ANSWER for answers in split.labels),
    )


def answer_of(text: str) -> str:
    """What was written, and nothing where it says that there is no answer."""
    return "" if text.strip(" .").lower() == NO_ANSWER else text


def _split(rows: Sequence[_Row]) -> Questions:
    return Questions(
        inputs=tuple(row.asked for row in rows),
        labels=tuple(row.answers for row in rows),
        starts=tuple(row.start for row in rows),
    )


def _annotated(rows: Rows) -> Questions:
    return _split([_of_squad(row) for row in rows])


def _of_squad(row: Mapping[str, Any]) -> _Row:
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    given = Question(question=row["question"], context=row["context"])
    if not texts:
        return _Row(asked=given, answers=("",), start=None)
    return _Row(asked=given, answers=tuple(texts), start=int(starts[0]))


def _supported(rows: Rows) -> Questions:
    """SciQ was made as a choice of four: only answers that stand in the text are kept, as they stand there."""
    found = []
    for row in rows:
        context, answer = row["support"], row["correct_answer"]
        start = context.lower().find(answer.lower())
        if start >= 0 and len(context.lower()) == len(context):
            given = Question(question=row["question"], context=context)
            found.append(_Row(asked=given, answers=(context[start : start + len(answer)],), start=start))
    return _split(found)


def _question(made: random.Random, questions: Mapping[str, str]) -> _Row:
    """A text of three facts about somebody, and a question for one of them."""
    name, wanted = made.choice(NAMES), made.choice(tuple(FACTS))
    said = {fact: made.choice(values) for fact, values in FACTS.items()}
    facts = [f"{fact} {said[fact]}" for fact in made.sample(tuple(FACTS), len(FACTS))]
    context = TEXT.format(*facts, name=name)
    return _Row(
        asked=Question(question=questions[wanted].format(name=name), context=context),
        answers=(said[wanted],),
        start=context.index(said[wanted]),
    )
