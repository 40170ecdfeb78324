"""Checks of a plugin as a distribution: metadata, imports, packaged run files."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from reidcore.plugins.finding import CORE
from reidcore.plugins.loading import LoadedPlugin, Plugins
from reidcore.plugins.packaged_runs import PackagedRun
from reidcore.testing.failures import ConformanceError

PUBLIC = ("api", "modules", "networks", "sizes", "errors", "testing", "tools")
"""Modules of the core that a plugin may import; the others may change in any release."""
HEAVY = ("torch", "numpy")


def packaging(plugin: LoadedPlugin, plugins: Plugins) -> None:
    """Names follow the plugin's, and the core is required from 1.x up to the next API."""
    found = plugin.found
    if found == CORE:
        return
    dashed = found.name.replace("_", "-")
    package = found.value.partition(".")[0]
    wrong = []
    if found.distribution.lower().replace("_", "-") != f"reid-plugin-{dashed}":
        wrong.append(f"the distribution is {found.distribution}, expected reid-plugin-{dashed}")
    if package != f"reid_{found.name}":
        wrong.append(f"the package is {package}, expected reid_{found.name}")
    if not re.match(r"\d", found.version):
        wrong.append(f"the version is {found.version!r}, expected a number")
    asked = [line.removeprefix("reidcore") for line in found.requires]
    parts = {part for line in asked for part in line.split(",")}
    if not any(re.fullmatch(r">=1(\.\d+)*", part) for part in parts) or "<2" not in parts:
        shown = ", ".join(found.requires) or "no reidcore"
        wrong.append(f"it requires {shown}, expected reidcore>=1.x,<2")
    if wrong:
        raise ConformanceError("; ".join(wrong))


def plugin_module_imports_no_torch(plugin: LoadedPlugin, plugins: Plugins) -> None:
    """Importing the entry point's module in a fresh process loads neither torch nor numpy."""
    module = plugin.found.value.partition(":")[0]
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        raise ConformanceError(f"{module} cannot be imported alone: {done.stderr.strip()}")
    if done.stdout.strip():
        raise ConformanceError(
            f"importing {module} imports {' and '.join(done.stdout.split())}; move what needs it "
            "into the module that a component's `build` names"
        )


def imports_only_the_public_modules_of_the_core(plugin: LoadedPlugin, plugins: Plugins) -> None:
    """No file of the package imports another module of the core."""
    package = sys.modules[plugin.found.value.partition(".")[0]]
    file = Path(str(package.__file__))
    folder = file.parent
    wrong = [
        f"{file.relative_to(folder)}:{line} imports {name}"
        for file in (sorted(folder.rglob("*.py")) if hasattr(package, "__path__") else [file])
        for line, name in _core_imports(file)
        if name.split(".")[1:2] not in [[public] for public in PUBLIC]
    ]
    if wrong:
        public = ", ".join(f"reidcore.{name}" for name in PUBLIC)
        raise ConformanceError(f"{'; '.join(wrong)}. Public are {public}")


def _core_imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import of the core."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = node.module == "reidcore"
            names = [f"reidcore.{a.name}" for a in node.names] if whole else [node.module]
        for name in names:
            if name.split(".")[0] == "reidcore":
                yield node.lineno, name  # type: ignore[attr-defined]


def run_file_runs_dry(run: PackagedRun, plugins: Plugins) -> None:
    """A run file in the wheel is wired and passes the dry run, with or without its data: the demo's
    stand in for a manifest that is not there."""
    from reidcore.errors import DataError
    from reidcore.testing.samples import run_dry

    path = Path(f"{run.name}.toml")
    try:
        run_dry(run.text, path, plugins)
    except DataError:
        demo = '{ read = "core.demo" }'
        run_dry(run.text, path, plugins, f"data.train={demo}", f"data.test={demo}")
