"""Models of the hub, or of a folder: configuration, tokenizer and weights, and what to say where they cannot be had.

Weights are read from safetensors only, and code that comes with a model is not run, unless the job says so (``trust``).
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, cast

from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from workers.errors import JobError
from workers.training.load import AUTO
from workers.training.memory import named_memory
from workers.training.models import NO_TRUST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.contract import Trust

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
"""What transformers raises for a model that is not there, gated, torn or too new, each seen in version 5.23."""
GATED_TEXTS = ("gated repo", "401 client error", "403 client error", "restricted")
CODE_TEXTS = ("trust_remote_code", "custom code")
PICKLE_TEXTS = ("pytorch_model.bin", "no file named model.safetensors")
UNREACHABLE_TEXTS = (
    "couldn't connect",
    "connection error",
    "offline mode",
    "name resolution",
    "max retries",
    "client has been closed",
)


def trusted(trust: Trust) -> Mapping[str, object]:
    """What ``from_pretrained`` must be told of a model's weights, beside how they are quantised."""
    return {"trust_remote_code": trust.remote_code, **({"use_safetensors": None} if trust.pickle else {})}


def is_seq2seq(name: str, trust: Trust = NO_TRUST) -> bool:
    """Whether the model has an encoder and a decoder, as its configuration says.

    Raises:
        JobError: it cannot be had.
    """
    config = _had(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=trust.remote_code))
    return bool(getattr(config, "is_encoder_decoder", False))


def tokenizer_of(name: str, trust: Trust = NO_TRUST) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a token to pad with: its own, else the one that ends a text.

    Raises:
        JobError: it cannot be had, or has neither token.
    """
    tokenizer = cast(
        "PreTrainedTokenizerBase",
        _had(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=trust.remote_code)),
    )
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise JobError(f"the tokenizer of {name} has neither a token to pad with nor one to end with; choose another.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """The model by its family's auto class, on the CPU and of safetensors unless ``settings`` say otherwise.

    Raises:
        JobError: it cannot be had, has no safetensors, or does not fit the class or the memory.
    """
    with named_memory(None):
        told = {"use_safetensors": True, "trust_remote_code": False, **settings}
        model = _had(name, lambda: AUTO[family].from_pretrained(name, **told))
    return cast("PreTrainedModel", model)


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
    if any(known in text for known in CODE_TEXTS):
        return (
            "Choose a model that transformers knows by itself; or read that code, and set trust.remote_code: true to "
            "run it on the node with the rights of the job."
        )
    if any(known in text for known in PICKLE_TEXTS):
        return (
            "Choose one with safetensors; or, if you trust whoever made it, set trust.pickle: true to read the weights "
            "it has, which may run code on the node."
        )
    return "Check its name on the hub, or name a folder that save_pretrained wrote, with safetensors."
