"""The notebook of the documentation runs from top to bottom, in a folder of its own."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

nbclient = pytest.importorskip("nbclient", reason="needs `uv run --all-groups`")
nbformat = pytest.importorskip("nbformat", reason="needs `uv run --all-groups`")

NOTEBOOK = Path(__file__).parents[2] / "docs/first-run.ipynb"


def test_it_holds_no_outputs():
    """What a run prints, and where, is of the machine that it ran on."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """Without a network; run and ranked lists show themselves, and the search prints matches."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [
        "".join(str(output.get("data", {}).get("text/html", "")) for output in cell.outputs)
        for cell in code
    ]
    assert any("<th>mAP</th>" in html for html in shown)
    (lists,) = [html for html in shown if "<img" in html]
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', lists)
    assert len(sources) == 4 * 9
    picture = Image.open(io.BytesIO(base64.b64decode(sources[0])))
    assert picture.height == 96
    drawn = [
        output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(drawn) == 2
    printed = code[-1].outputs[-1]["text"]
    assert len(re.findall(r"^\d \S+\.(?:jpg|png) \d\.\d{3}$", printed, re.MULTILINE)) == 3
