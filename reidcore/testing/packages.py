"""Checks of a plugin as a distribution: metadata, imports, packaged run files."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from reidcore.plugins.finding import CORE
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import PackagedRun
from reidcore.plugins.plugin_status import LoadedPlugin
from reidcore.testing.failures import ConformanceError, NotChecked

PUBLIC = ("api", "modules", "networks", "sizes", "errors", "testing", "tools")
"""Modules of the core that a plugin may import; the others may change in any release."""
HEAVY = ("torch", "numpy")
SLOWEST = 1.0
"""Seconds that importing a plugin may take."""
_TRIES = 3
_MOVE_IT = "move what needs it into the module that a component's `build` names"


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
    _, heavy = _first_import(module, *sys.path)
    if heavy:
        raise ConformanceError(f"importing {module} imports {' and '.join(heavy)}; {_MOVE_IT}")


def plugin_module_imports_quickly(plugin: LoadedPlugin, plugins: Plugins) -> None:
    """Importing the entry point's module in a fresh process, without what it needs of the core,
    takes less than a second in the fastest of three tries: `reid --help` waits for it."""
    module = plugin.found.value.partition(":")[0]
    seconds, heavy = _first_import(module, *sys.path)
    if heavy:
        raise NotChecked(f"it imports {' and '.join(heavy)}, which another check tells")
    for _ in range(_TRIES - 1):
        if seconds >= SLOWEST:
            seconds = min(seconds, _import(module)[0])
    if seconds >= SLOWEST:
        raise ConformanceError(
            f"importing {module} takes {seconds:.1f} s, {_slowest(module)}; every `reid --help` "
            f"and `reid plugins` waits for it: {_MOVE_IT}"
        )


@cache
def _first_import(module: str, *path: str) -> tuple[float, list[str]]:
    """Return what `_import` does, found out once for this sys.path."""
    return _import(module)


def _import(module: str) -> tuple[float, list[str]]:
    """Return the seconds that importing a module takes in a fresh process, without what it needs of
    the core, and which heavy packages are loaded then."""
    code = (
        "import sys, time, reidcore.api, reidcore.errors, reidcore.sizes\n"
        f"start = time.perf_counter()\nimport {module}\nseconds = time.perf_counter() - start\n"
        f"print()\nprint(seconds, *[heavy for heavy in {HEAVY} if heavy in sys.modules])"
    )
    printed, errors, failed = _run(["-c", code])
    if failed:
        raise ConformanceError(f"{module} cannot be imported alone: {' '.join(errors[-1:])}")
    seconds, *heavy = printed.splitlines()[-1].split()
    return float(seconds), heavy


def _slowest(module: str) -> str:
    """Return where the time of an import goes: the module whose own code takes longest."""
    times = [line.split("|") for line in _run(["-X", "importtime", "-c", f"import {module}"])[1]]
    own = [
        (int(time.split(":")[-1]), name.strip())
        for time, _, name in (line for line in times if len(line) == 3)
        if time.split(":")[-1].strip().isdigit()
    ]
    time, name = max(own)
    return f"{time / 1e6:.1f} s of it the code of {name}"


def _run(arguments: list[str]) -> tuple[str, list[str], int]:
    """Run Python in a fresh process; return what it prints, its lines of errors and exit code."""
    path = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    return done.stdout, done.stderr.splitlines(), done.returncode


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
