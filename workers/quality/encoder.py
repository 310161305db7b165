"""Vectors of texts by a transformer's hidden layer, for the scores of ``embedding``. Imports torch and transformers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, RobertaTokenizer
from transformers.utils import logging

from workers.errors import JobError
from workers.quality.embedding import Embed, Embedded

_LONGEST = 512
"""Tokens at most where neither tokenizer nor model says; BERT's own limit."""
_UNSET = 1_000_000
"""A tokenizer without a limit says ``int(1e30)``, which overflows the tokenizers library: that is no limit."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
"""What transformers raises for a model that is not there, gated, torn or too new, each seen in version 5.23."""


def load_embed(
    name: str,
    *,
    layer: int,
    revision: str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
) -> Embed:
    """The embedding by hidden layer ``layer`` of the model ``name`` (on the hub, or a folder).

    Args:
        name: as on the hub, or a folder; code that comes with it is never run.
        layer: which hidden state; 0 is the embedding.
        revision: a commit or tag of the hub's; ``None``: the newest.
        device: where it runs.
        batch_size: texts at a time.

    Raises:
        JobError: it cannot be loaded, as one whose weights are pickles, which can carry code; or has no such layer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        with _quiet():
            model, loading = AutoModel.from_pretrained(
                name, revision=revision, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
        if missing:
            raise ValueError(f"its weights lack {missing[0]}")
    except UNREADABLE as error:
        fact = textwrap.shorten(str(error), 300, placeholder=" ...").rstrip(".")
        raise JobError(
            f"The scoring model {name} cannot be loaded ({fact}); make it available to this node, with safetensors, "
            "or name the folder of another."
        ) from error
    return embed_with(model, tokenizer, layer=layer, device=device, batch_size=batch_size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and the report of heads left out and a pooler that is drawn: no score uses them."""
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def embed_with(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, layer: int = -1, device: str = "cpu", batch_size: int = 32
) -> Embed:
    """The embedding by hidden layer ``layer`` (0 is the embedding, -1 the last) of a model at hand.

    Texts are cut at the longest the model takes. As in BERTScore's package, space around a text is dropped, and a
    tokenizer of RoBERTa's or GPT-2's family sees a space before its first word, as before any other.

    Args:
        model: answers ``hidden_states`` when asked for them, as every encoder of transformers does.
        tokenizer: its tokenizer.
        layer: which hidden state.
        device: where it runs; the model is there while it works, and on the CPU between two calls, so that training has
            the memory.
        batch_size: texts at a time.

    Raises:
        JobError: when called: the model has no such layer, or does not fit the memory.
    """
    longest = _longest(model, tokenizer)
    model.eval()

    def embed(texts: Sequence[str]) -> list[Embedded]:
        found: list[Embedded] = []
        try:
            model.to(device)
            for start in range(0, len(texts), batch_size):
                found += _embed_batch(model, tokenizer, texts[start : start + batch_size], layer, device, longest)
        except torch.OutOfMemoryError as error:
            raise JobError(f"The scoring model does not fit the memory of {device}; name a smaller one.") from error
        finally:
            model.to("cpu")
        return found

    return embed


def _longest(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest text: the tokenizer's word, else the model's positions less the two RoBERTa sets aside."""
    if tokenizer.model_max_length < _UNSET:
        return int(tokenizer.model_max_length)
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return _LONGEST if positions is None else int(positions) - 2


def _embed_batch(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], layer: int, device: str, longest: int
) -> list[Embedded]:
    before = " " if isinstance(tokenizer, (RobertaTokenizer, GPT2Tokenizer)) else ""
    batch = tokenizer(
        [before + text.strip() if text.strip() else "" for text in texts],
        padding=True,
        truncation=True,
        max_length=longest,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        states = model(
            input_ids=batch["input_ids"].to(device),
            attention_mask=batch["attention_mask"].to(device),
            output_hidden_states=True,
        ).hidden_states
    if not -len(states) <= layer < len(states):
        raise JobError(f"The scoring model has layers 0 to {len(states) - 1}, and {layer} was asked for; name another.")
    vectors = states[layer].float().cpu().numpy().astype(np.float64)
    answers = []
    for place, rows in enumerate(vectors):
        kept = batch["attention_mask"][place].bool()
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][place][kept].tolist())
        special = batch["special_tokens_mask"][place][kept].nonzero().flatten().tolist()
        answers.append(Embedded(tokens=tuple(tokens), vectors=rows[kept.numpy()], special=frozenset(special)))
    return answers
