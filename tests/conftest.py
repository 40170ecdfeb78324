"""Fixtures that several test files use."""

from __future__ import annotations

import pytest
import toy_parts


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory):
    """A folder like site-packages with the plugins of `toy_parts` installed."""
    site = tmp_path_factory.mktemp("site")
    toy_parts.install(site)
    toy_parts.write_people(site / "people.csv")
    return site


@pytest.fixture(scope="module")
def toy_folder(toy_site, tmp_path_factory):
    """The current folder, with `people.csv`, no demo data, and the plugins of `toy_site`."""
    folder = tmp_path_factory.mktemp("work")
    toy_parts.write_people(folder / "people.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(toy_site)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        yield folder
