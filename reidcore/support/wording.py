"""Words for messages."""

from __future__ import annotations


def a_or_an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def one_line(error: BaseException) -> str:
    """The text of an exception on one line."""
    return " ".join(str(error).split())


def in_words(error: BaseException) -> str:
    """An exception's type and text on one line."""
    text = one_line(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name
