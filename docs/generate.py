"""Writes the generated parts of docs/run-files.md: key tables from the classes that read them.

    uv run python docs/generate.py

What stands between `<!-- generated: NAME -->` and `<!-- end -->` is replaced; the rest is written
by hand. A test fails where the committed file differs from what this makes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import KINDS
from reidcore.plugins.settings_help import describe_settings
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.runfiles.tables import (
    Cosine,
    Data,
    Eval,
    Normalize,
    Optim,
    RankingTable,
    Shortlist,
    Steps,
    Train,
    Warmup,
)
from reidcore.runfolder.record import RESUME_FREE

PAGE = Path(__file__).with_name("run-files.md")
TABLES = {
    "data": Data,
    "data.normalize": Normalize,
    "train": Train,
    "optim": Optim,
    "optim.steps": Steps,
    "optim.cosine": Cosine,
    "optim.warmup": Warmup,
    "eval": Eval,
    "ranking": RankingTable,
    "ranking.shortlist": Shortlist,
    **{f"protocol.{name}": protocol for name, protocol in PROTOCOLS.items()},
}
PART = re.compile(r"(<!-- generated: ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def key_table(config: type) -> str:
    """A Markdown table of the settings of an attrs class."""
    settings = describe_settings(config)
    if not settings:
        return "No keys.\n"
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for one in settings:
        value = ", ".join(filter(None, (_in_words(one.type), one.bounds)))
        default = "*required*" if one.default is None else f"`{one.default}`"
        if one.default == "none":
            default = "not set"
        rows.append(f"| `{one.key}` | {value} | {default} | {one.doc.replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def _in_words(type_name: str) -> str:
    # A bar would end the cell; what is in a component's table, its own part of the page says.
    return type_name.replace(" | ", ", ").replace(" of any values", "")


def components(plugin: str = "core") -> str:
    """Every component of a plugin with its keys, by kind; "" where it has none."""
    text = []
    plugins = Plugins([] if plugin == "core" else None)
    for kind, rule in KINDS.items():
        found = plugins.components(kind, plugin)
        if found:
            text.append(f"### {rule.plural.capitalize()}\n")
        for one in found:
            text.append(f"#### `{one.name}`\n")
            summary = one.component.summary.rstrip(".")
            paper = f" ({one.component.paper})" if one.component.paper else ""
            text.append(f"{summary[:1].upper()}{summary[1:]}{paper}.\n")
            text.append(key_table(one.component.config))
    return "\n".join(text)


def generated(name: str) -> str:
    """The generated part of this name. Raises KeyError where there is none."""
    if name == "components":
        return components()
    if name == "resume_free":
        return ", ".join(f"`{key}`" for key in RESUME_FREE) + "\n"
    return key_table(TABLES[name])


def page(text: str) -> str:
    """The page with all its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}\n{generated(part[2])}\n{part[3]}", text)


def main() -> int:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
