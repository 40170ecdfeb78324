"""Throw-away plugins for tests of run files: `toy` is sound, the others are not."""

from __future__ import annotations

from pathlib import Path

import toy_plugin
from distributions import write_distribution

from reidcore.plugins.loading import Plugins


def add(plugins: Plugins) -> None:
    """Add `toy` in-process, without installing it."""
    plugins.add("toy", toy_plugin)


def install(site: Path) -> None:
    """Install `toy`, `wrong` and plugins that cannot be used into the folder `site`."""
    for name, version in (("toy", "0.1.0"), ("wrong", "0.2.0")):
        text = Path(__file__).with_name(f"{name}_plugin.py").read_text(encoding="utf-8")
        write_distribution(site, name, text, version=version)
    write_distribution(
        site, "broken", "import reid_nowhere", version="0.3.0", requires=["reidcore>=1.2"]
    )
    write_distribution(site, "future", version="2.0.0", groups=["reidcore.plugins.v2"])
    for letter in "AB":
        distribution, package = f"reid-plugin-twin{letter}", f"reid_twin_{letter.lower()}"
        write_distribution(site, "twin", distribution=distribution, package=package)


def write_people(file: Path) -> None:
    """A manifest with 20 training and 6 test identities, cameras and times, without pictures."""
    lines = ["path,pid,camera,split,time"]
    for pid in range(26):
        for number in range(6):
            split = "train" if pid < 20 else "query" if number < 2 else "gallery"
            lines.append(f"{pid}_{number}.jpg,{pid},{number % 2},{split},{10 * number}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
