"""One trained run and its pictures for all tests of the gallery."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with the run `run` and drawn pictures."""
    pytest.importorskip("lance", reason="needs `uv run --all-groups`")
    from gallery_runs import draw, run_text

    from reidcore.cli.main import main

    folder = tmp_path_factory.mktemp("gallery")
    draw(folder)
    (folder / "tiny.toml").write_text(run_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(folder / "cache"))
        assert main(["run", str(folder / "tiny.toml"), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture(scope="session")
def settings(work, trained, tmp_path_factory):
    """Those of a service with a token and narrow bounds."""
    pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")
    from service_asking import TOKEN

    from reid_gallery import Gallery
    from reid_gallery.serve.settings import Settings, digest

    folder = tmp_path_factory.mktemp("service")
    Gallery.create(work / "run", folder / "g", device="cpu").add(work / "gallery.csv")
    return Settings(
        str(folder / "g"),
        str(folder / "state"),
        device="cpu",
        rate=0,
        decode_seconds=100,
        waiting=8,
        picture_bytes=200_000,
        pictures=4,
        decoders=1,
        tokens={"ann": digest(TOKEN)},
    )


@pytest.fixture(scope="session")
def http(settings):
    """A connection to that service."""
    from service_asking import running

    with running(settings) as http:
        yield http


@pytest.fixture(scope="session")
def trained(work):
    """The run, loaded."""
    import reidcore

    return reidcore.load(work / "run", device="cpu")


@pytest.fixture(scope="session")
def day(work, tmp_path_factory):
    """A folder with a gallery `gallery` of a day's sightings by four cameras, and new.jpg."""
    from gallery_runs import draw_day

    from reid_gallery import Gallery

    folder = tmp_path_factory.mktemp("day")
    draw_day(folder, identities=6)
    Gallery.create(work / "run", folder / "gallery", device="cpu").add(folder / "seen.csv")
    return folder


@pytest.fixture(scope="module")
def service(day, tmp_path_factory):
    """The address of a service of that gallery."""
    pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")
    from driving import served_here

    from reid_gallery.serve.settings import Settings

    state = tmp_path_factory.mktemp("state")
    # A busy machine takes seconds to start what decodes pictures.
    asked = Settings(str(day / "gallery"), str(state), device="cpu", rate=0, decode_seconds=100)
    with served_here(asked) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of Playwright's."""
    pytest.importorskip("playwright", reason="needs `uv run --all-groups`")
    from driving import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def client(service):
    """A client of the service."""
    from reid_gallery.serve.client import Client

    with Client(service) as client:
        yield client


@pytest.fixture
def opened(browser, service):
    """The service's page in a browser, which has no faults and asks no other service."""
    from driving import driven

    with driven(browser, service) as opened:
        yield opened
        assert opened.faults == []
        assert [
            one
            for one in opened.requests
            if not one.startswith((f"{service}/", f"blob:{service}/"))
        ] == []
