"""Run files that come with the core and with plugins, inside their wheels. Torch-free."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

from reidcore.errors import PluginError, UsageError, nearest
from reidcore.plugins.loading import Plugins
from reidcore.support.wording import readable


@attrs.frozen
class PackagedRun:
    """A run file `plugin:name` in the folder `runs` of the plugin's package."""

    plugin: str
    name: str
    file: Traversable

    @property
    def full_name(self) -> str:
        return f"{self.plugin}:{self.name}"

    @property
    def text(self) -> str:
        """The file's text. Raises PluginError if it cannot be read."""
        if problem := self.problem:
            raise PluginError(f"run file {self.full_name} in the package of plugin {problem}")
        return self.file.read_text(encoding="utf-8")

    @property
    def problem(self) -> str:
        """Why the file cannot be read, with the plugin and the file's name; empty if it can."""
        file = f"{self.plugin}: runs/{self.file.name}"
        try:
            if not self.file.is_file():  # reading a pipe would not end
                what = "a folder" if self.file.is_dir() else "no file, or none that can be read"
                return f"{file} cannot be read: it is {what}"
            self.file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            return f"{file} is not UTF-8 text: {error}"
        except OSError as error:
            return f"{file} cannot be read: {error.strerror or error}"
        return ""

    @property
    def summary(self) -> str:
        """The file's first comment line, or why it cannot be read."""
        if problem := self.problem:
            return f"cannot be used: {problem}"
        first = self.text.split("\n", 1)[0]
        return readable(first.lstrip("# ").strip()) if first.startswith("#") else ""


def packaged_runs(plugins: Plugins, plugin: str | None = None) -> Iterator[PackagedRun]:
    """Yield the run files of one plugin, or of all that can be imported, sorted by name."""
    names = [plugin] if plugin is not None else plugins.names()
    for name in names:
        if plugin is None and plugins.status(name).plugin is None:
            continue
        package = "reidcore" if name == "core" else plugins.load(name).found.value.partition(".")[0]
        for file in _run_files(package.partition(":")[0]):
            yield PackagedRun(name, file.name.removesuffix(".toml"), file)


def _run_files(package: str) -> list[Traversable]:
    """Return what is called *.toml in the folder `runs` of a package; a single module has none."""
    try:
        if not hasattr(importlib.import_module(package), "__path__"):
            return []
        folder = resources.files(package) / "runs"
        files = list(folder.iterdir()) if folder.is_dir() else []
    except (ImportError, OSError):  # an object that was added by hand has no package
        return []
    return sorted((one for one in files if one.name.endswith(".toml")), key=lambda one: one.name)


def find_packaged(text: str, plugins: Plugins) -> PackagedRun:
    """`plugin:name`, or `name` alone for the core's. Raises UsageError with the nearest name."""
    plugin, colon, name = text.partition(":")
    if not colon:
        plugin, name = "core", text
    runs = list(packaged_runs(plugins, plugin))
    for run in runs:
        if run.name == name:
            return run
    known = [run.name for run in runs]
    raise UsageError(
        f"plugin {plugin!r} has no run file {name!r}{nearest(name, known) or '.'} "
        f"It has {', '.join(known) or 'none'}."
    )


def run_source(text: str, plugins: Plugins) -> tuple[str, Path]:
    """Text and shown path of a run file: a path, or the name of a packaged one.

    A bare word without a suffix, such as `demo`, means the core's packaged file unless a file of
    that name exists here.
    """
    path = Path(text)
    if os.path.isfile(path) or path.suffix == ".toml" or ("/" in text and ":" not in text):
        from reidcore.runfiles.toml_files import read_text

        return read_text(path), path
    run = find_packaged(text, plugins)
    return run.text, Path(f"{run.name}.toml")
