"""Models of the hub, or of a folder: configuration, tokenizer and weights, and what to say where they cannot be had.

Weights are read from safetensors only, and code that comes with a model is not run, unless the job says so (``trust``).
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import TYPE_CHECKING, Any, cast

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available

from workers.contract import Trust
from workers.errors import JobError
from workers.training.load import AUTO, drawn_from
from workers.training.memory import named_memory
from workers.training.models.info import NO_TRUST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers.image_processing_utils import BaseImageProcessor

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


def trust_in(loading: Mapping[str, object]) -> Trust:
    """Whose code may run, as ``trusted`` says it among what ``from_pretrained`` is told."""
    return Trust(remote_code=bool(loading.get("trust_remote_code")))


def config_of(name: str, trust: Trust = NO_TRUST) -> PreTrainedConfig:
    """The model's configuration: its architectures, its labels, whether it has an encoder and a decoder.

    Raises:
        JobError: it cannot be had.
    """
    read = cast("Callable[..., object]", AutoConfig.from_pretrained)
    return cast("PreTrainedConfig", _had(name, lambda: read(name, trust_remote_code=trust.remote_code)))


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


def processor_of(name: str, trust: Trust = NO_TRUST) -> ProcessorMixin:
    """The processor of a model that reads pictures and text; it needs no torchvision.

    Raises:
        JobError: it cannot be had, or reads no pictures.
    """
    processor = cast("ProcessorMixin", _had(name, lambda: _processor(name, trust.remote_code)))
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise JobError(
            f"model {name} has no image processor beside its tokenizer, so it cannot be shown pictures; "
            "choose a model that answers in text of pictures."
        )
    return processor


def weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """The model by its family's auto class, on the CPU and of safetensors unless ``settings`` say otherwise.

    A head it lacks is drawn.

    Raises:
        JobError: it cannot be had, has no safetensors, or does not fit the class or the memory.
    """
    return _loaded(family, name, settings)[0]


def whole_weights_of(family: str, name: str, **settings: object) -> PreTrainedModel:
    """``weights_of`` for a family whose head is of no use untrained.

    Raises:
        JobError: as ``weights_of`` does, or the model lacks some of its weights.
    """
    model, loading = _loaded(family, name, settings)
    missing = loading["missing_keys"]
    if missing:
        raise JobError(
            f"model {name} has no weights for {', '.join(sorted(missing)[:3])}, so it was never trained as a {family} "
            "model; choose one that was."
        )
    return model


def _loaded(family: str, name: str, settings: Mapping[str, object]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and what transformers says of its loading: ``missing_keys``, ``mismatched_keys``."""
    wanted = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True, **settings}
    with named_memory(None):
        found = _had(name, lambda: AUTO[family].from_pretrained(name, **wanted))
    return cast("tuple[PreTrainedModel, dict[str, Any]]", found)


def weights_with_head(
    family: str, name: str, labels: Sequence[str], *, seed: int, **settings: object
) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """``weights_of`` a model with an output for each of ``labels``, and which output is whose.

    Its own head is kept where it knows the labels by name, or has as many. One that is drawn anew is told on stderr,
    and its weights follow from ``seed``.

    Raises:
        JobError: as ``weights_of``; or the checkpoint lacks weights of more than the head.
    """
    own = cast("dict[int, str]", config_of(name, trust_in(settings)).id2label or {})
    places = places_of([own[place] for place in sorted(own)], labels)
    if places is not None:
        return weights_of(family, name, **settings), places
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
    with drawn_from(seed):
        model, loading = _loaded(family, name, {**names, "ignore_mismatched_sizes": True, **settings})
    drawn = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    body = [key for key in drawn if key.startswith(f"{model.base_model_prefix}.")]
    if body:
        raise JobError(
            f"model {name} cannot be loaded: its checkpoint lacks {len(body)} weights of its body, such as {body[0]}, "
            "or has them in another shape. Choose a checkpoint of this very architecture."
        )
    if drawn:
        sys.stderr.write(
            f"{name} has no head for these {len(labels)} classes; drawn anew, to be trained: {', '.join(drawn)}.\n"
        )
    return model, tuple(range(len(labels)))


def places_of(own: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Where the wanted labels are among a model's own; ``None``: it does not know them all.

    They may lie in a row, in which two may be called alike (ImageNet's cranes), or one by one.
    """
    count = len(wanted)
    for first in range(len(own) - count + 1):
        if list(own[first : first + count]) == list(wanted):
            return tuple(range(first, first + count))
    return tuple(own.index(label) for label in wanted) if all(own.count(label) == 1 for label in wanted) else None


def image_processor_of(name: str, trust: Trust = NO_TRUST) -> BaseImageProcessor:
    """What makes of a picture the values that the model was trained on.

    Raises:
        JobError: it cannot be had.
    """
    read = cast("Callable[..., object]", AutoImageProcessor.from_pretrained)
    return cast("BaseImageProcessor", _had(name, lambda: read(name, trust_remote_code=trust.remote_code)))


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class for still pictures alone: ``None`` serves as its part for videos, which needs torchvision."""

    class Still(kind):  # type: ignore[misc,valid-type] # a class that is given
        def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
            if argument_name == "video_processor" and argument is None:
                return type(None)
            return super().check_argument_for_proper_class(argument_name, argument)

    return Still


def _processor(name: str, remote_code: bool) -> object:
    """Transformers' own way, but where that wants torchvision for videos the parts one by one."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=remote_code)
    kind = cast("type[ProcessorMixin] | None", PROCESSOR_MAPPING.get(type(config), None))
    if kind is None or is_torchvision_available() or "video_processor" not in inspect.signature(kind).parameters:
        return AutoProcessor.from_pretrained(name, trust_remote_code=remote_code)  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=remote_code)
    images = AutoImageProcessor.from_pretrained(name, trust_remote_code=remote_code)  # type: ignore[no-untyped-call]
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
    if "timm" in text:
        return "Models made of timm's parts cannot be used here; choose one without, such as hustvl/yolos-tiny."
    return "Check its name on the hub, or name a folder that save_pretrained wrote, with safetensors."
