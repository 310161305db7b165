"""Models of text: decoders, encoder-decoders, encoders."""

from __future__ import annotations

from workers.training.models.info import ModelInfo

ENCODER_HEADS = ("token-classification", "question-answering", "fill-mask")
"""What an encoder that classifies texts does besides."""
DECODER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def causal(architecture: str) -> ModelInfo:
    """A decoder: Qwen2 and LLaMA name their parts alike."""
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
        lora_targets=DECODER_TARGETS,
        source_epochs=5,
        source_batch_size=32,
        source_learning_rate=3e-3,
        family="text-generation",
    )


MODELS: dict[str, ModelInfo] = {
    "tiny/qwen2": causal("qwen2"),
    "tiny/llama": causal("llama"),
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
