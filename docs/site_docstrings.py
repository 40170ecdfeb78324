"""An extension of griffe: examples in docstrings become blocks of code.

Markdown would take the `>>>` of an example for a quotation in a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>> .*(?:\n(?P=indent)[ ]*\S.*)*", re.MULTILINE)
"""A first line, and all up to an empty line or one that is indented less."""

LITERAL = re.compile(
    r"^(?P<indent>[ ]*)Example::\n\n"
    r"(?P<code>(?P<more>(?P=indent)[ ]+)\S.*(?:\n(?:(?P=more).*|$))*?)"
    r"(?=\n*(?:\Z|^(?P=indent)\S))",
    re.MULTILINE,
)
"""Code behind two colons, up to a line that is indented less."""


class FencedExamples(griffe.Extension):
    """Fences the examples of every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring with a fence around each example."""
    text = re.sub(r"^( *Example, .*)::$", r"\1:", text, flags=re.MULTILINE)
    text = LITERAL.sub(r"\g<indent>Example:\n\g<more>```python\n\g<code>\n\g<more>```", text)
    return EXAMPLE.sub(r"\g<indent>```pycon\n\g<0>\n\g<indent>```", text)
