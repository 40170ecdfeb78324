"""Throw-away installed distributions: a folder that works like site-packages on PYTHONPATH."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]

REID = ("-m", "reidcore")
"""Arguments of Python that run the command `reid`."""

FINE = """
from __future__ import annotations
from typing import Literal
import attrs
from reidcore.api import Component, Feature, MapName, hookimpl, setting

@attrs.frozen
class Stripes:
    source: MapName = setting("the map to cut")
    parts: int = setting("number of stripes", default=6, at_least=1)
    pool: Literal["average", "max"] = setting("how a stripe is pooled", default="average")

    def outputs(self, given):
        return {}

@hookimpl
def reid_heads():
    return [Component("stripes", Stripes, "PACKAGE.parts:build", summary="horizontal stripes",
                      paper="Sun et al., ECCV 2018")]
"""
"""The `plugin.py` of a plugin with one head; PACKAGE stands for its package."""


def write_distribution(
    site: Path,
    name: str,
    plugin: str = FINE,
    *,
    distribution: str = "",
    package: str = "",
    version: str = "0.1.0",
    groups: Sequence[str] = ("reidcore.plugins.v1",),
    requires: Sequence[str] = ("reidcore",),
    files: Mapping[str, str] | None = None,
) -> None:
    """Install a plugin called `name` into the folder `site`, as an installer leaves it.

    plugin: the text of its `plugin.py`. files: further files of its package.
    """
    distribution = distribution or f"reid-plugin-{name}"
    package = package or f"reid_{name}"
    sources = {"__init__.py": "", "plugin.py": plugin, **(files or {})}
    written = {f"{package}/{file}": text for file, text in sources.items()}
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {line}\n" for line in requires)
    written[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{required}"
    )
    written[f"{info}/entry_points.txt"] = "".join(
        f"[{group}]\n{name} = {package}.plugin\n" for group in groups
    )
    written[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in written) + f"{info}/RECORD,,\n"
    for path, text in written.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("PACKAGE", package), encoding="utf-8")


def install_built(project: Path, site: Path) -> None:
    """Build the wheel of `project` and unpack it into the folder `site`, as an installer does."""
    # Those of the repository do not change while tests run, and many tests install them.
    make = _built_once if project.is_relative_to(ROOT) else _built
    zipfile.ZipFile(io.BytesIO(make(project))).extractall(site)


def _built(project: Path) -> bytes:
    """The wheel of `project`."""
    with tempfile.TemporaryDirectory() as folder:
        # What `hatchling build` calls.
        (wheel,) = WheelBuilder(str(project)).build(directory=folder, versions=["standard"])
        return Path(wheel).read_bytes()


_built_once = functools.cache(_built)


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the distributions in `site` installed."""
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=120,
    )


def reid(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command `reid` with the distributions in `site` installed."""
    return python(site, *REID, *arguments)


def install_explaining(site: Path) -> None:
    """Install the plugin `shown`, whose parts explain themselves."""
    here = Path(__file__).parent
    parts = (here / "explaining_parts.py").read_text()
    plugin = (here / "explaining_plugin.py").read_text()
    write_distribution(site, "shown", plugin, files={"parts.py": parts})
