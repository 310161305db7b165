"""Models of the hub, or of a folder: configuration, tokenizer and weights, and what to say where they cannot be had.

Weights are read from safetensors only, and code that comes with a model is never run.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, cast

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from workers.errors import JobError
from workers.training.load import AUTO
from workers.training.memory import named_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
"""What transformers raises for a model that is not there, gated, torn or too new, each seen in version 5.23."""
GATED_TEXTS = ("gated repo", "401 client error", "403 client error", "restricted")
UNREACHABLE_TEXTS = (
    "couldn't connect",
    "connection error",
    "offline mode",
    "name resolution",
    "max retries",
    "client has been closed",
)


def config_of(name: str) -> PreTrainedConfig:
    """The model's configuration: its architectures, its labels, whether it has an encoder and a decoder.

    Raises:
        JobError: it cannot be had.
    """
    return cast("PreTrainedConfig", _had(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False)))


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a token to pad with: its own, else the one that ends a text.

    Raises:
        JobError: it cannot be had, or has neither token.
    """
    tokenizer = cast(
        "PreTrainedTokenizerBase", _had(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    )
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise JobError(f"the tokenizer of {name} has neither a token to pad with nor one to end with; choose another.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """The model by its family's auto class, on the CPU unless ``settings`` say otherwise; a head it lacks is drawn.

    Raises:
        JobError: it cannot be had, has no safetensors, or does not fit the class or the memory.
    """
    return _loaded(family, name, settings)[0]


def whole_weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """``weights_of`` for a family whose head is of no use untrained.

    Raises:
        JobError: as ``weights_of`` does, or the model lacks some of its weights.
    """
    model, missing = _loaded(family, name, settings)
    if missing:
        raise JobError(
            f"model {name} has no weights for {', '.join(sorted(missing)[:3])}, so it was never trained as a {family} "
            "model; choose one that was."
        )
    return model


def _loaded(family: str, name: str, settings: Mapping[str, object]) -> tuple[PreTrainedModel, set[str]]:
    """The model, and which of its weights it did not bring."""
    wanted = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True, **settings}
    with named_memory(None):
        model, found = cast(
            "tuple[PreTrainedModel, dict[str, set[str]]]",
            _had(name, lambda: AUTO[family].from_pretrained(name, **wanted)),
        )
    return model, found["missing_keys"]


def _had(name: str, read: Callable[[], object]) -> object:
    try:
        return read()
    except UNREADABLE as error:
        raise JobError(f"model {name} cannot be loaded: {_fact(error)} {_remedy(error)}") from error


def _fact(error: Exception) -> str:
    fact = textwrap.shorten(str(error), 300, placeholder=" ...")
    return fact if fact.endswith((".", "...")) else f"{fact}."


def _remedy(error: Exception) -> str:
    """By the texts of the hub's client and transformers, whose error types do not tell these apart."""
    text = str(error).lower()
    if any(known in text for known in GATED_TEXTS):
        return "Accept its terms on the hub, and give this node a token of an account that did (HF_TOKEN)."
    if any(known in text for known in UNREACHABLE_TEXTS):
        return "Give this node access to the hub, or fetch the model into its cache or a folder and name that."
    return "Check its name on the hub, or name a folder that save_pretrained wrote, with safetensors."
