"""Writes docs/licences.md: what the distributions depend on, and under which licence.

    uv run --all-groups python docs/licences.py

Read from the metadata of what is installed, so everything must be: `--all-groups`. What only tests
and builds need is not listed. A test fails where a dependency is declared and not on the page.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("licences.md")
HEAD = """# Licences of dependencies

The project is under Apache-2.0. This is what its distributions depend on, with the licence that
each package states in its metadata, on Linux with CUDA; `docs/licences.py` made it. It is no legal
advice: packages may contain parts under other licences, which their own files name.
"""
LARGER = {"mlflow": "mlflow-skinny"}
"""Packages that the tests do without, and a part of each that they have."""
CLASSIFIER = "License :: OSI Approved :: "


def projects() -> dict[str, list[Requirement]]:
    """Return what each distribution of the project declares, extras under NAME[EXTRA]."""
    found = {}
    for file in (ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        lines = {"": project.get("dependencies", []), **{f"[{one}]": extras[one] for one in extras}}
        for extra, asked in lines.items():
            found[project["name"] + extra] = [Requirement(line) for line in asked]
    return found


def direct() -> dict[str, list[str]]:
    """Return what is declared, and by which distributions of the project, both by name."""
    ours = projects()
    found: dict[str, list[str]] = {}
    for name, requirements in ours.items():
        for one in requirements:
            if one.name not in ours:
                found.setdefault(canonicalize_name(one.name), []).append(name)
    return dict(sorted(found.items()))


def indirect(names: list[str]) -> list[str]:
    """Return what these packages bring, and what that brings, as far as it is installed."""
    found: set[str] = set()
    rest = [(name, "") for name in names]
    seen = set(rest)
    while rest:
        name, extra = rest.pop()
        package = installed(name)
        if package is None:
            continue
        found.add(name)
        for line in package.requires or []:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                wanted = {(canonicalize_name(one.name), each) for each in {"", *one.extras}}
                rest += wanted - seen
                seen |= wanted
    return sorted(found - set(names))


def installed(name: str) -> Distribution | None:
    """Return the package of this name, or its part, None where neither is installed."""
    for one in (name, LARGER.get(name, name)):
        try:
            return distribution(one)
        except PackageNotFoundError:
            continue
    return None


def licence(name: str) -> str:
    """Return the licence that a package states. Raises LookupError where it is not installed."""
    package = installed(name)
    if package is None:
        raise LookupError(f"{name} is not installed; run this with `uv run --all-groups`")
    stated = package.metadata
    listed = [one for one in stated.get_all("Classifier", []) if one.startswith(CLASSIFIER)]
    text = (stated.get("License") or "").strip()
    for one in (
        stated.get("License-Expression") or "",
        # Some give the whole text under "License"; its first line may be a title or a name.
        text if "\n" not in text and len(text) < 60 else "",
        ", ".join(one.removeprefix(CLASSIFIER) for one in listed),
        text.partition("\n")[0],
    ):
        if one.strip() and one.strip() != "UNKNOWN":
            return re.sub(r"\s+", " ", one.replace("|", "/")).strip()
    return "none stated"


def page() -> str:
    """Return the page. Raises LookupError where a declared package is not installed."""
    declared = direct()
    rows = ["| package | licence | needed by |", "| --- | --- | --- |"]
    for name, users in declared.items():
        needed = "reidcore" if "reidcore" in users else ", ".join(users)
        rows.append(f"| {name} | {licence(name)} | {needed} |")
    rows += ["", "They bring:", "", "| package | licence |", "| --- | --- |"]
    rows += [f"| {name} | {licence(name)} |" for name in indirect(list(declared))]
    return f"{HEAD}\n" + "\n".join(rows) + "\n"


def main() -> int:
    try:
        text = page()
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
