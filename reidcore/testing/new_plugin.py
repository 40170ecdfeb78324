"""`reid new-plugin NAME`: a plugin's package from the template in `reidcore/testing/template`.

The template is a plugin itself, with one component of every kind and a command. What is written is
the template without the kinds that were not asked for, under the plugin's own name. Imports neither
torch nor numpy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from reidcore.errors import UsageError, nearest
from reidcore.plugins.finding import CORE, find_plugins
from reidcore.plugins.registration import COMMANDS_HOOK, KINDS, NAME
from reidcore.support.files import new_folder

EXAMPLES = {
    "backbone": "small",
    "head": "gem",
    "loss": "contrastive",
    "matcher": "positions",
    "postprocessor": "elapsed",
    "procedure": "average",
    "reader": "pictures",
    "sampler": "cameras",
    "augmentation": "shadow",
    "command": "best",
}
"""Kind -> the template's example of it, after which its files are named."""
HOOKS = {kind: rule.hook for kind, rule in KINDS.items()} | {"command": COMMANDS_HOOK}

USUAL = ("head", "matcher")

_RESNET = 'use = "core.resnet"\ndepth = 18\nwidth = '
_TIMED = 'name = "timed"\nmatcher = "pairs"\n'
INSTEAD = (
    ("backbone", 'use = "PLUGIN.small"\nchannels = 32', f"{_RESNET}0.5"),
    ("backbone", 'use = "PLUGIN.small"\nchannels = 8', f"{_RESNET}0.125"),
    ("head", '"gem.vector"', '"backbone.layer4"'),
    ("postprocessor", f'[[ranking]]\n{_TIMED}scale = "logistic"\npost = ["elapsed"]\n\n', ""),
    ("matcher", '[[ranking]]\nname = "pairs"\nmatcher = "pairs"\n\n', ""),
    ("matcher", _TIMED, _TIMED.replace("pairs", "look")),
    ("sampler", '"PLUGIN.cameras"', '"core.identities"'),
    ("augmentation", '{ use = "PLUGIN.shadow" }', '{ use = "core.pad_crop", pad = 6 }'),
)
"""(kind, own, other): what run files have where the template's own component is not asked for."""

RENAMED = {"gitignore": ".gitignore", "workflow.yml": ".github/workflows/tests.yml"}
"""The template's files that git and packaging would act on under their own names."""


def chosen_kinds(text: str) -> list[str]:
    """The kinds in a list with commas, each once, in the order of `EXAMPLES`."""
    asked = [word.strip() for word in text.split(",")]
    for word in asked:
        if word not in EXAMPLES:
            near = nearest(word, EXAMPLES) or "."
            if word.startswith("observer"):
                near = ": observers are functions in plugin.py, which docs/hooks.md shows."
            raise UsageError(f"--kinds: {word!r} is no kind{near} Kinds: {', '.join(EXAMPLES)}")
    return [kind for kind in EXAMPLES if kind in asked]


def new_plugin(name: str, kinds: Collection[str], folder: Path) -> None:
    """Write the package of a plugin `name` with one example of each of `kinds` into `folder`,
    whole or not at all. Raises `UsageError` for a name that cannot be used and an existing
    folder, `OutputError` where it cannot be written."""
    _check_name(name)
    if os.path.lexists(folder):
        raise UsageError(f"{folder.absolute()} exists already; move it away, or take another name")
    with new_folder(folder) as partial:
        for path, text in package_files(name, kinds):
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_text(text, encoding="utf-8")


def _check_name(name: str) -> None:
    # The distribution and the package get their prefix anyway.
    prefixed = name.startswith("reid_")
    if not NAME.fullmatch(name) or name.endswith("_") or "__" in name or prefixed:
        words = re.findall(r"[a-z0-9]+", name.lower())
        likely = re.sub("^(reid_)?(plugin_)?", "", "_".join(words))
        hint = f", did you mean {likely!r}?" if NAME.fullmatch(likely) else "."
        raise UsageError(
            f"{name!r} is no name for a plugin{hint} Names are lower-case letters, digits and "
            "single underscores, begin with a letter, and have no prefix 'reid_'."
        )
    if name == CORE.name:
        raise UsageError("plugin name 'core' belongs to reidcore itself; take another")
    for found in find_plugins():
        if found.name == name:
            raise UsageError(
                f"plugin {found} is installed, and no two plugins may have one name; take another, "
                "or uninstall that"
            )


def package_files(name: str, kinds: Collection[str]) -> Iterator[tuple[str, str]]:
    """(path, text) of every file of the package."""
    dashed = name.replace("_", "-")
    words = {"DISTRIBUTION": f"reid-plugin-{dashed}", "PLUGIN": name, "COMMAND": dashed}
    unused = [example for kind, example in EXAMPLES.items() if kind not in kinds]
    if not has_demo(kinds):
        unused += ["demo", "sample"]
    for path, text in _template(resources.files("reidcore.testing") / "template"):
        stem = path.rpartition("/")[2].partition(".")[0]
        if re.sub("^(settings|test)_", "", stem) in unused:
            continue
        text = _without(text, path, kinds, unused)
        for word, own in words.items():
            text = text.replace(word, own)
        yield RENAMED.get(path, path).replace("PLUGIN", name), text


def has_demo(kinds: Collection[str]) -> bool:
    """True if there is something that stands in a run on the core's drawn walkers, as readers and
    commands do not."""
    return bool(set(kinds) - {"reader", "command"})


def _template(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.startswith((".", "__pycache__")):  # caches of Python and of linters
            continue
        if entry.is_dir():
            yield from _template(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")


def _without(text: str, path: str, kinds: Collection[str], unused: Sequence[str]) -> str:
    """The text of a file of the template without what belongs to unused components."""
    if path == "reid_PLUGIN/plugin.py":
        marks = [f"def {hook}(" for kind, hook in HOOKS.items() if kind not in kinds]
        lines = [f".settings_{component} " for component in unused]
        if "command" not in kinds:
            text = text.replace("import Command, Component", "import Component")
        if set(kinds) == {"command"}:
            text = text.replace("import Command, Component", "import Command")
            marks.append("def _text(")
            lines.append("import resources")
        blocks = [
            _lines_without(block, lines).rstrip("\n")
            for block in text.split("\n\n\n")
            if not any(mark in block for mark in marks)
        ]
        return "\n\n\n".join(blocks) + "\n"
    if path == "README.md":
        commands = [f"reid run PLUGIN:{run}" for run in unused]
        commands += ["reid data demo pictures"] if "reader" not in kinds else []
        commands += ["sample.toml"] if "sample" in unused else []
        commands += [] if "command" in kinds else ["COMMAND-best"]
        commands += ["settings_NAME", "needs torch", "/runs"] if set(kinds) == {"command"} else []
        return _lines_without(text, [*(f"`PLUGIN.{one}`" for one in unused), *commands])
    if path.endswith(".toml"):
        for kind, own, other in INSTEAD:
            text = text if kind in kinds else text.replace(own, other)
        tables = text.split("\n\n")
        return "\n\n".join(
            table for table in tables if not any(f'"PLUGIN.{one}"' in table for one in unused)
        )
    return text


def _lines_without(text: str, marks: Sequence[str]) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not any(mark in line for mark in marks))
