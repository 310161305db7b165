"""Words of a text as the Penn Treebank splits them; needs none of NLTK's data."""

from __future__ import annotations

from workers.quality.packages import installed

_NOT_WORDS = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", "(", ")", "[", "]", '"'])
"""What the COCO caption evaluation drops, as tokens (its brackets are written ``-LRB-`` and so on)."""


def ptb_words(text: str) -> list[str]:
    """Words and punctuation, in order.

    A full stop inside a text stays with its word, as nothing splits sentences first.
    """
    with installed("of words", "nltk"):
        from nltk.tokenize import NLTKWordTokenizer  # noqa: PLC0415 - over a second
    return [str(word) for word in NLTKWordTokenizer().tokenize(text)]


def caption_words(text: str) -> list[str]:
    """Lower-case words without punctuation, as the COCO caption evaluation compares them.

    Its own tokenizer is a Java program; this one differs from it in rare words only (abbreviations, odd quotes).
    """
    words = (word.rstrip(".") for word in ptb_words(text.replace("\n", " ").lower()))
    return [word for word in words if word and word not in _NOT_WORDS]
