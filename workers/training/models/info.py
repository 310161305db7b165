"""What is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.contract import Trust

NO_TRUST = Trust()


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model of the registry.

    Attributes:
        architecture: transformers' ``model_type``; the ``architecture`` column of a report.
        config: keyword arguments of that architecture's configuration class.
        lora_targets: module names LoRA is attached to when the manifest names none.
        source_epochs: passes over the source split that make the base model; none for a pretrained one.
        source_batch_size: samples of each of their steps.
        source_learning_rate: AdamW's for these. 3e-3 left the image transformer at 0.87 upright for some seeds.
        family: of ``families.FAMILIES``; ``None``: the first of the task's that fits the model's own configuration.
        heads: further families it can be built as: an encoder is the same one under the head that a task needs.
        hub: its id on the hub, or a folder; ``None``: it is built from ``config``.
        trust: what of it may run code, where it is of the hub or a folder.
    """

    architecture: str | None
    config: Mapping[str, object]
    lora_targets: tuple[str, ...]
    source_epochs: int
    source_batch_size: int = 64
    source_learning_rate: float = 2e-3
    family: str | None = "image-classification"
    heads: tuple[str, ...] = ()
    hub: str | None = None
    trust: Trust = NO_TRUST

    @property
    def families(self) -> tuple[str, ...]:
        """All it can be built as; none for a model of the hub, whose configuration has to be asked."""
        return () if self.family is None else (self.family, *self.heads)
