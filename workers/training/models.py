"""The models a manifest may name: data only, so that naming one loads nothing.

``tiny/*`` models are built from a configuration of the named architecture with random weights, then trained on the
task's source split in the ``load`` phase, which stands in for a pretrained checkpoint where there is no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from workers.errors import UnknownNameError


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

    @property
    def families(self) -> tuple[str, ...]:
        """All it can be built as; none for a model of the hub, whose configuration has to be asked."""
        return () if self.family is None else (self.family, *self.heads)


HUB_PATTERN = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|\.{0,2}/.+"
"""A model of the hub has an owner; a folder begins with ``/``, ``./`` or ``../``."""


ENCODER_HEADS = ("token-classification", "question-answering", "fill-mask")
"""What an encoder that classifies texts does besides."""


def _causal(architecture: str) -> ModelInfo:
    """Qwen2 and LLaMA name their parts alike."""
    return ModelInfo(
        architecture=architecture,
        config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 192,
            "max_position_embeddings": 256,
        },
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        source_epochs=5,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="text-generation",
    )


MODELS: dict[str, ModelInfo] = {
    "tiny/vit": ModelInfo(
        architecture="vit",
        config={
            "image_size": 8,
            "patch_size": 2,
            "num_channels": 1,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
        source_epochs=9,
    ),
    "tiny/convnext": ModelInfo(
        architecture="convnext",
        config={
            "image_size": 8,
            "patch_size": 1,
            "num_channels": 1,
            "num_stages": 2,
            "hidden_sizes": [32, 64],
            "depths": [1, 3],
        },
        # Not dwconv: LoRA on a depthwise convolution needs a rank that is a multiple of its 32 or 64 groups.
        lora_targets=("pwconv1", "pwconv2"),
        source_epochs=8,
    ),
    "tiny/qwen2": _causal("qwen2"),
    "tiny/llama": _causal("llama"),
    "tiny/t5": ModelInfo(
        architecture="t5",
        config={
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 192,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
        },
        lora_targets=("q", "k", "v", "o", "wi", "wo"),
        source_epochs=5,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="seq2seq",
    ),
    "tiny/bart": ModelInfo(
        architecture="bart",
        config={
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 192,
            "decoder_ffn_dim": 192,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "forced_eos_token_id": None,
        },
        lora_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        source_epochs=5,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="seq2seq",
    ),
    "tiny/bert": ModelInfo(
        architecture="bert",
        config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "max_position_embeddings": 128,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        lora_targets=("query", "key", "value", "dense"),
        source_epochs=3,
        source_batch_size=32,
        source_learning_rate=1e-3,
        family="text-classification",
        heads=ENCODER_HEADS,
    ),
    "tiny/distilbert": ModelInfo(
        architecture="distilbert",
        config={
            "dim": 64,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 192,
            "max_position_embeddings": 128,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "qa_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
        lora_targets=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
        source_epochs=3,
        source_batch_size=32,
        source_learning_rate=1e-3,
        family="text-classification",
        heads=ENCODER_HEADS,
    ),
}


def model_info(name: str) -> ModelInfo:
    """The entry of ``name``, or what is known beforehand of a model of the hub or in a folder.

    Raises:
        UnknownNameError: lists the known models.
    """
    if name in MODELS:
        return MODELS[name]
    if not is_pretrained(name):
        raise UnknownNameError("model", name, MODELS)
    return ModelInfo(architecture=None, config={}, lora_targets=(), source_epochs=0, family=None, hub=name)


def is_pretrained(name: str) -> bool:
    """Whether it names a model of the hub (``owner/name``), or a folder (``/…``, ``./…``)."""
    return not name.startswith("tiny/") and re.fullmatch(HUB_PATTERN, name) is not None
