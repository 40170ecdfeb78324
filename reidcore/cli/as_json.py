"""The option `--json` of commands that print a table."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any


def add_json(parser: ArgumentParser, what: str = "") -> None:
    """Add `--json`. what: more on what it prints, for the help."""
    parser.add_argument(
        "--json", action="store_true", help=f"print JSON in place of the table{what}"
    )


def as_text(value: Any) -> str:
    """Return a value of dicts, lists, texts and numbers as JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(as_text(value))
