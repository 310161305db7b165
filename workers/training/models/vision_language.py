"""Models that put pictures into words."""

from __future__ import annotations

from collections.abc import Mapping

from workers.training.models.info import ModelInfo
from workers.training.models.text import DECODER_TARGETS, causal


def _vision_language(
    architecture: str, *, text: Mapping[str, object], vision: Mapping[str, object], lora_targets: tuple[str, ...]
) -> ModelInfo:
    """A decoder as ``causal`` has it, and what sees pictures of 16 by 16."""
    return ModelInfo(
        architecture=architecture,
        config={"text_config": {**causal(architecture).config, **text}, "vision_config": vision},
        lora_targets=lora_targets,
        source_epochs=6,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="image-text-to-text",
    )


def _blip(family: str) -> ModelInfo:
    """One configuration makes BLIP's captioner and its answerer."""
    layers = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ModelInfo(
        architecture="blip",
        config={
            "text_config": {**layers, "encoder_hidden_size": 64, "max_position_embeddings": 64},
            # BLIP's own 1e-10 for what is drawn leaves a picture unseen for long.
            "vision_config": {**layers, "image_size": 16, "patch_size": 4, "initializer_range": 0.02},
        },
        lora_targets=("query", "key", "value", "dense", "qkv", "projection", "fc1", "fc2"),
        source_epochs=6,
        source_batch_size=32,
        source_learning_rate=2e-3,
        family=family,
    )


MODELS: dict[str, ModelInfo] = {
    "tiny/qwen2_vl": _vision_language(
        "qwen2_vl",
        # Five sixths of a head's 16 halved frequencies turn with place in a picture, as in the 2 B model's.
        text={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}},
        vision={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 3,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 1,
        },
        lora_targets=(*DECODER_TARGETS, "qkv", "proj", "fc1", "fc2"),
    ),
    "tiny/mllama": _vision_language(
        "mllama",
        text={"num_hidden_layers": 3, "cross_attention_layers": [1]},
        vision={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "intermediate_size": 192,
            "image_size": 16,
            "patch_size": 4,
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
            "intermediate_layers_indices": [1],
            "vision_output_dim": 128,
        },
        lora_targets=(*DECODER_TARGETS, "fc1", "fc2"),
    ),
    "tiny/blip": _blip("image-text-to-text"),
    "tiny/blip-vqa": _blip("visual-question-answering"),
}
