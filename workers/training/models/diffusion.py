"""Models that make pictures."""

from __future__ import annotations

from workers.training.models.info import ModelInfo

MODELS: dict[str, ModelInfo] = {
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
