"""Models of the hub, or of a folder: configuration, tokenizer and weights, and what to say where they cannot be had.

Weights are read from safetensors only, and code that comes with a model is never run.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, cast

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available

from workers.errors import JobError
from workers.training.load import AUTO
from workers.training.memory import named_memory

if TYPE_CHECKING:
    from collections.abc import Callable

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


def is_seq2seq(name: str) -> bool:
    """Whether the model has an encoder and a decoder, as its configuration says.

    Raises:
        JobError: it cannot be had.
    """
    config = _had(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    return bool(getattr(config, "is_encoder_decoder", False))


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


def processor_of(name: str) -> ProcessorMixin:
    """The processor of a model that reads pictures and text; it needs no torchvision.

    Raises:
        JobError: it cannot be had, or reads no pictures.
    """
    processor = cast("ProcessorMixin", _had(name, lambda: _processor(name)))
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise JobError(
            f"model {name} has no image processor beside its tokenizer, so it cannot be shown pictures; "
            "choose a model that answers in text of pictures."
        )
    return processor


def is_answerer(name: str) -> bool:
    """Whether the model answers questions alone, by a head made for that (BLIP's), as its configuration says.

    Raises:
        JobError: it cannot be had.
    """
    config = _had(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    return any(kind.endswith("ForQuestionAnswering") for kind in getattr(config, "architectures", None) or ())


def weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """The model by its family's auto class, on the CPU unless ``settings`` say otherwise.

    Raises:
        JobError: it cannot be had, has no safetensors, or does not fit the class or the memory.
    """
    with named_memory(None):
        model = _had(
            name, lambda: AUTO[family].from_pretrained(name, use_safetensors=True, trust_remote_code=False, **settings)
        )
    return cast("PreTrainedModel", model)


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class for still pictures alone: ``None`` serves as its part for videos, which needs torchvision."""

    class Still(kind):  # type: ignore[misc,valid-type] # a class that is given
        def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
            if argument_name == "video_processor" and argument is None:
                return type(None)
            return super().check_argument_for_proper_class(argument_name, argument)

    return Still


def _processor(name: str) -> object:
    """Transformers' own way, but where that wants torchvision for videos the parts one by one."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    kind = cast("type[ProcessorMixin] | None", PROCESSOR_MAPPING.get(type(config), None))
    if kind is None or is_torchvision_available() or "video_processor" not in inspect.signature(kind).parameters:
        return AutoProcessor.from_pretrained(name, trust_remote_code=False)  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    images = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)  # type: ignore[no-untyped-call]
    return without_video(kind)(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=None,
        chat_template=tokenizer.chat_template,
    )


def not_had(name: str, error: Exception) -> JobError:
    """What to say of a model that could not be read, for one of ``UNREADABLE``."""
    return JobError(f"model {name} cannot be loaded: {_fact(error)} {_remedy(error)}")


def _had(name: str, read: Callable[[], object]) -> object:
    try:
        return read()
    except UNREADABLE as error:
        raise not_had(name, error) from error


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
