"""Models that look at pictures: classifiers, and detectors."""

from __future__ import annotations

from workers.training.models.info import ModelInfo

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
}
