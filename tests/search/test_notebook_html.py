"""How runs, scores and ranked lists show themselves in notebooks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from reidcore.api import Row
from reidcore.runfolder.results import Score
from reidcore.search.notebook import MATCH, QUERY, UNKNOWN, WRONG, run_html, scores_html
from reidcore.search.results import Ranked


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a <b>.png"
    Image.fromarray(np.full((200, 100, 3), 9, np.uint8)).save(path)
    return str(path)


def test_ranked_lists_are_rows_of_pictures(picture):
    """Each with its query, then as many as were found; borders say what is known of identities."""
    query = (Row(picture, "1"), Row(picture, ""))
    gallery = (Row(picture, "1"), Row(picture, "2"), Row(picture, ""))
    index = torch.tensor([[1, 0, 2], [0, 1, -1]])
    distance = torch.tensor([[0.25, 0.5, 0.75], [0.1, 0.2, torch.inf]])
    html = Ranked(query, gallery, index, distance)._repr_html_()
    first, second = html.split('<div style="display:flex">')[1:]
    colors = [re.findall(r"solid (#\w+)", one) for one in (first, second)]
    assert colors == [[QUERY, WRONG, MATCH, UNKNOWN], [QUERY, UNKNOWN, UNKNOWN]]
    assert re.findall(r"<br>([^<]+)<", first) == ["query", "0.25", "0.5", "0.75"]
    assert "a &lt;b&gt;.png" in html and "<b>" not in html
    assert "2 of 2 queries, the nearest of 3 gallery pictures" in html


def test_scores_are_a_table_in_percent():
    """A score of several trials has its deviation; names are escaped."""
    scores = {
        ("a<b", "main", "plain"): {"mAP": Score((0.5,)), "rank-1": Score((0.25, 0.75))},
        ("a<b", "main", "rerank"): {"mAP": Score((0.625,))},
    }
    html = scores_html(scores)
    rows = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in html.split("</tr>")[:-1]]
    assert rows == [
        ["test set", "ranking", "stage", "mAP", "rank-1"],
        ["a&lt;b", "main", "plain", "50.0", "50.0 ± 35.4"],
        ["a&lt;b", "main", "rerank", "62.5", ""],
    ]
    assert "no scores" in run_html("x", ["main"], {})
