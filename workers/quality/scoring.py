"""The scores of one set of predictions, each given what it needs; one whose encoder cannot be had or used is null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.errors import JobError
from workers.quality import registry
from workers.quality.embedding import MODELS, Embed, layer_of
from workers.quality.registry import Takes, score_info
from workers.quality.result import ScoreResult, unknown


class NoEncoderError(JobError):
    """A score's encoder cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model that gives texts their vectors, as one score takes them.

    Attributes:
        embed: texts to vectors.
        note: which model and layer it is.
    """

    embed: Embed
    note: str


class Encoders:
    """The encoders of a job's scores: each is loaded when it is first asked for, and once.

    Args:
        named: score to the encoder it is to use: ``NAME`` or ``NAME@REVISION`` on the hub, or a folder.
        published: whether a score without one takes its published encoder (``embedding.MODELS``) from the hub.
        device: where they work; between two scores they are on the CPU.
    """

    def __init__(self, named: Mapping[str, str], *, published: bool, device: str = "cpu") -> None:
        self._named: dict[str, str] = {**(MODELS if published else {}), **named}
        self._device = device
        self._found: dict[str, Encoder | str] = {}

    def of(self, score: str) -> Encoder:
        """The encoder of ``score``.

        Raises:
            NoEncoderError: none is named, or it cannot be loaded; asked again it says the same, without trying.
        """
        if score not in self._found:
            self._found[score] = self._load(score)
        found = self._found[score]
        if isinstance(found, str):
            raise NoEncoderError(found)
        return found

    def _load(self, score: str) -> Encoder | str:
        if score not in self._named:
            return (
                "no encoder: none is named, and the published one is fetched only for models of the hub; "
                f"name a folder under evaluation.encoders.{score}"
            )
        name, revision = _parts(self._named[score])
        layer = layer_of(score, name)
        from workers.quality.encoder import load_embed  # noqa: PLC0415 - brings torch and transformers

        try:
            embed = load_embed(name, layer=layer, revision=revision, device=self._device)
        except JobError as error:
            return f"no encoder: {error} It is named under evaluation.encoders.{score}."
        return Encoder(embed=embed, note=f"by {self._named[score]}, {'last layer' if layer < 0 else f'layer {layer}'}")


def take_scores(
    names: Iterable[str],
    *,
    answers: Sequence[Any],
    labels: Sequence[Any],
    encoders: Encoders,
    context: Mapping[str, object],
    likelihoods: tuple[Sequence[Any], Sequence[Any]] | None = None,
) -> list[ScoreResult]:
    """The scores ``names``, in that order.

    Args:
        names: of ``registry.SCORES``.
        answers: what the model said of each example.
        labels: what is right.
        encoders: for those that need one.
        context: what the others need (``registry.evaluate``).
        likelihoods: log-probabilities of the true tokens, and those tokens (``Takes.LIKELIHOODS``); ``None``: they
            were not taken, and scores of them are unknown.

    Raises:
        UnknownNameError: no such score.
        InputError: what is given cannot be scored.
        JobError: a package is missing, or a score that needs no encoder cannot be computed.
    """
    return [_taken(name, answers, labels, encoders, context, likelihoods) for name in names]


def _taken(
    name: str,
    answers: Sequence[Any],
    labels: Sequence[Any],
    encoders: Encoders,
    context: Mapping[str, object],
    likelihoods: tuple[Sequence[Any], Sequence[Any]] | None,
) -> ScoreResult:
    info = score_info(name)
    if info.takes is Takes.LIKELIHOODS:
        if likelihoods is None:
            return unknown(name, "how likely the model found the right answers was not kept")
        return registry.evaluate(name, *likelihoods)
    if "embed" not in info.context:
        return registry.evaluate(name, answers, labels, context=context)
    try:
        encoder = encoders.of(name)
        result = registry.evaluate(name, answers, labels, context={**context, "embed": encoder.embed})
    except JobError as error:  # what was trained is worth more than this score
        return unknown(name, str(error))
    return replace(result, note=f"{result.note}; {encoder.note}")


def _parts(named: str) -> tuple[str, str | None]:
    """A name and its revision; a folder has none."""
    name, at, revision = named.partition("@")
    return (name, revision) if at and not named.startswith(("/", ".")) else (named, None)
