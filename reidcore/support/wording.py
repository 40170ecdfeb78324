"""Words for messages."""

from __future__ import annotations

from collections.abc import Sequence


def a_or_an(noun: str) -> str:
    """Return the noun with its article."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def one_line(error: BaseException) -> str:
    """The text of an exception on one line, "" of one that has none to give."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return ""


def in_words(error: BaseException) -> str:
    """An exception's type and text on one line."""
    text = one_line(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def one_line_of(text: str, longest: int = 200) -> str:
    """Return what a user has typed as one line that a message can quote."""
    return shortened(text.replace("\n", "\\n"), longest)


LONGEST_WORD = 400
LONGEST_LINE = 900
LONGEST_MESSAGE = 950
"""Characters of a word, such as a path, of a line and of a whole message that is shown."""


def shortened(text: str, longest: int) -> str:
    """Return the text, of which the middle is left out if it has more characters than `longest`."""
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]} ... ({len(text)} characters) ... {text[-longest // 6 :]}"


def readable(message: str) -> str:
    """Return a message with long words and long lines shortened, control characters shown, and the
    lines left out that would make it too long, but for their number."""
    lines = []
    for line in message.split("\n"):
        words = [shortened(word, LONGEST_WORD) for word in line.split(" ")]
        text = shortened(" ".join(words), LONGEST_LINE)
        shown = (one if ord(one) >= 32 or one == "\t" else repr(one)[1:-1] for one in text)
        lines.append("".join(shown))
    fitting = _fitting(lines)
    more = len(lines) - fitting
    if more:
        lines = [*lines[:fitting], f"and {more} more {'line' if more == 1 else 'lines'} like these"]
    return "\n".join(lines)


def _fitting(lines: Sequence[str]) -> int:
    """Return how many of the lines fit into a message; the first always does."""
    length = 0
    for count, line in enumerate(lines):
        length += len(line) + 1
        if count and length > LONGEST_MESSAGE:
            return count
    return len(lines)


def few(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are: `a, b, c, d and 3 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
