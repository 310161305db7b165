"""Task ``image-generation``: make a picture of a prompt. It is measured as inference and not scored.

Data: prompts that people gave to Stable Diffusion, in two collections, as Power Hungry Processing (arXiv
2311.16863) uses them, fetched from the hub when a job needs them; and ``prompts-tiny``, made here. Only prompts are
read, no pictures.
"""

from __future__ import annotations

from workers.tasks.data import Prompts, Split, TaskData
from workers.tasks.hub import HubData, rows_of
from workers.tasks.shapes import COLOURS, KINDS

HUB = {
    "sd-prompts": HubData(
        path="Gustavosta/Stable-Diffusion-Prompts",
        splits={"test": "test"},
        columns=("Prompt",),
        licence="not stated",
    ),
    # The hub's own conversion: the data set itself is a program, which datasets no longer runs.
    "diffusiondb": HubData(
        path="poloclub/diffusiondb",
        revision="refs/convert/parquet",
        folder="2m_text_only",
        splits={"test": "train[:1%]"},
        columns=("prompt",),
        licence="CC0 1.0",
    ),
}


def load(dataset: str, seed: int) -> TaskData:
    """Prompts; there is nothing to train on.

    Args:
        dataset: of ``HUB``, or ``prompts-tiny``; the registry has checked it.
        seed: has no effect: the data is fixed.

    Raises:
        JobError: the hub's data cannot be had.
    """
    del seed
    if dataset in HUB:
        (column,) = HUB[dataset].columns
        prompts = tuple(row[column] for row in rows_of(HUB[dataset], "test"))
    else:
        prompts = tuple(f"a {colour} {kind}" for kind in KINDS for colour in COLOURS)
    return TaskData(source=None, train=_split(()), test=_split(prompts))


def _split(prompts: tuple[str, ...]) -> Prompts:
    return Split(inputs=prompts, labels=prompts)
