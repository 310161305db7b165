"""The models a manifest may name: data only, so that naming one loads nothing.

``tiny/*`` models are built from a configuration of the named architecture with random weights, then trained on the
task's source split in the ``load`` phase, which stands in for a pretrained checkpoint where there is no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from workers.contract import Trust
from workers.errors import UnknownNameError

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


HUB_PATTERN = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|\.{0,2}/.+"
"""A model of the hub has an owner; a folder begins with ``/``, ``./`` or ``../``."""


ENCODER_HEADS = ("token-classification", "question-answering", "fill-mask")
"""What an encoder that classifies texts does besides."""
_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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
        lora_targets=_DECODER,
        source_epochs=5,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="text-generation",
    )


def _vision_language(
    architecture: str, *, text: Mapping[str, object], vision: Mapping[str, object], lora_targets: tuple[str, ...]
) -> ModelInfo:
    """A decoder as ``_causal`` has it, and what sees pictures of 16 by 16."""
    return ModelInfo(
        architecture=architecture,
        config={"text_config": {**_causal(architecture).config, **text}, "vision_config": vision},
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
    "tiny/resnet": ModelInfo(
        architecture="resnet",
        config={"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2], "layer_type": "basic"},
        lora_targets=("convolution",),
        source_epochs=8,
    ),
    "tiny/regnet": ModelInfo(
        architecture="regnet",
        config={
            "embedding_size": 16,
            "hidden_sizes": [32, 64],
            "depths": [1, 2],
            "groups_width": 16,
            "layer_type": "x",
        },
        # Not layer.1: it is grouped, as dwconv is.
        lora_targets=("layer.0.convolution", "layer.2.convolution", "shortcut.convolution"),
        source_epochs=8,
    ),
    "tiny/mobilenet_v2": ModelInfo(
        architecture="mobilenet_v2",
        config={
            "image_size": 16,
            "depth_multiplier": 0.25,
            "expand_ratio": 2,
            "output_stride": 8,
            "finegrained_output": False,
            "classifier_dropout_prob": 0.0,
        },
        lora_targets=("expand_1x1.convolution", "reduce_1x1.convolution", "conv_1x1.convolution"),
        source_epochs=8,
    ),
    "tiny/efficientnet": ModelInfo(
        architecture="efficientnet",
        config={
            "image_size": 16,
            "width_coefficient": 0.25,
            "depth_coefficient": 1.0,
            # What 0.25 makes of the 1,280 channels at its top; another number does not fit.
            "hidden_dim": 320,
            "kernel_sizes": [3, 3, 3],
            "in_channels": [32, 64, 96],
            "out_channels": [64, 96, 160],
            "depthwise_padding": [],
            "strides": [1, 2, 1],
            "num_block_repeats": [1, 2, 2],
            "expand_ratios": [1, 4, 4],
            "dropout_rate": 0.0,
            "drop_connect_rate": 0.0,
            # At 0.02 its first layers drown in the epsilon of their batch norms, and nothing is learned.
            "initializer_range": 0.15,
        },
        lora_targets=("expand_conv", "project_conv", "top_conv"),
        source_epochs=8,
    ),
    "tiny/yolos": ModelInfo(
        architecture="yolos",
        config={
            "image_size": [32, 32],
            "patch_size": 16,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "num_detection_tokens": 2,
            # At 0.02, which is for 768 wide, layers this narrow pass on too little to learn from.
            "initializer_range": 0.1,
            "use_mid_position_embeddings": False,
        },
        lora_targets=("query", "key", "value", "dense"),
        source_epochs=12,
        source_batch_size=32,
        family="object-detection",
    ),
    "tiny/detr": ModelInfo(
        architecture="detr",
        config={
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 16,
                "hidden_sizes": [16, 32, 64],
                "depths": [1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage3"],
            },
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_queries": 2,
            "dropout": 0.0,
        },
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "convolution", "input_projection"),
        source_epochs=16,
        source_batch_size=32,
        family="object-detection",
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
        lora_targets=(*_DECODER, "qkv", "proj", "fc1", "fc2"),
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
        lora_targets=(*_DECODER, "fc1", "fc2"),
    ),
    "tiny/blip": _blip("image-text-to-text"),
    "tiny/blip-vqa": _blip("visual-question-answering"),
    # Of random weights: its pictures are noise, and what they cost is real.
    "tiny/stable-diffusion": ModelInfo(
        architecture="stable-diffusion",
        config={
            "num_inference_steps": 4,
            "unet": {
                "sample_size": 8,
                "layers_per_block": 1,
                "block_out_channels": (32, 64),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "cross_attention_dim": 32,
                "attention_head_dim": 8,
                "norm_num_groups": 8,
            },
            "vae": {
                "block_out_channels": (32, 64),
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
                "latent_channels": 4,
                "norm_num_groups": 8,
            },
            "text_encoder": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 32,
            },
            # As Stable Diffusion 1.5 has it.
            "scheduler": {
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "clip_sample": False,
                "set_alpha_to_one": False,
                "steps_offset": 1,
            },
        },
        lora_targets=(),
        source_epochs=0,
        family="text-to-image",
    ),
}


def model_info(name: str, trust: Trust = NO_TRUST) -> ModelInfo:
    """The entry of ``name``, or what is known beforehand of a model of the hub or in a folder.

    ``trust`` is for the latter two: nothing of the registry's runs code.

    Raises:
        UnknownNameError: lists the known models.
    """
    if name in MODELS:
        return MODELS[name]
    if not is_pretrained(name):
        raise UnknownNameError("model", name, MODELS)
    return ModelInfo(architecture=None, config={}, lora_targets=(), source_epochs=0, family=None, hub=name, trust=trust)


def is_pretrained(name: str) -> bool:
    """Whether it names a model of the hub (``owner/name``), or a folder (``/…``, ``./…``)."""
    return not name.startswith("tiny/") and re.fullmatch(HUB_PATTERN, name) is not None
