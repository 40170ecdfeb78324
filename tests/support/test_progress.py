"""What a long run shows, in a pipe and in a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import TINY, environment

from reidcore.support.progress import Plain, duration, fitting, shown_means


def test_plain_lines_show_terms_rate_and_time_left():
    """In a pipe every epoch is one line with its losses, its rate and the time left."""
    stream = io.StringIO()
    plain = Plain(stream)
    plain.epoch_started(1, 4, 1)
    plain.epoch_ended({"epoch": 2, "loss": 1.5, "id.accuracy": 0.25, "pictures_per_second": 80.4})
    assert re.fullmatch(
        r"epoch 2/4  loss 1\.500  id\.accuracy 0\.250  80 pictures/s  0:00 left\n",
        stream.getvalue(),
    )


def test_words():
    """Bookkeeping columns are no losses; long times have hours."""
    assert shown_means({"epoch": 1, "loss": 2, "lr": 0.1, "seconds": 3}) == ["loss 2.000"]
    assert duration(62.4) == "1:02" and duration(3723) == "1:02:03"


@pytest.mark.parametrize("width", range(45))
def test_words_fit_into_a_line(width: int):
    """A line has whole words only, as many as fit, and dots where some are missing."""
    words = ["loss 1.000", "id 2.000", "accuracy 0.500", "x 3.000"]
    line = fitting(words, width)
    whole = "  ".join(words)
    assert len(line) <= width
    if width >= len(whole):
        assert line == whole
    elif width >= 15:  # "loss 1.000  ..."
        kept = line.removesuffix("  ...").split("  ")
        assert kept == words[: len(kept)]
        longer = "  ".join([*words[: len(kept) + 1], "..."])
        assert len(longer) > width, "one more would have fitted"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_live_line_and_then_the_scores(tmp_path: Path):
    """In a terminal of 80 columns a run with many losses shows a bar, rate, time left and the
    losses that fit, in one line each, and ends with the table of scores. means.csv has all."""
    more = "".join(
        f'[[loss]]\nname = "more{number}"\nuse = "core.softmax"\nfeatures = ["neck.bn"]\n\n'
        for number in range(5)
    )
    (tmp_path / "tiny.toml").write_text(TINY.replace("[train]", f"{more}[train]"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reidcore", "run", "tiny.toml"],
        cwd=tmp_path,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env={**environment(tmp_path / "cache"), "COLUMNS": "80", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.wait() == 0, text
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    epochs = [line for line in lines if line.startswith("epoch")]
    assert max(map(len, epochs)) <= 80
    live = [line for line in epochs if "━" in line]
    assert any(re.search(r"━ +\d+ pictures/s  \d+:\d\d left  loss \d", line) for line in live)
    ended = [line for line in epochs if "━" not in line]
    form = r"epoch \d/6  \d+ pictures/s  \d+:\d\d left  loss \d.* id \d\S+( .*)?  \.\.\."
    assert len(ended) == 6 and all(re.fullmatch(form, line) for line in ended), ended
    columns = (tmp_path / "runs/tiny/means.csv").read_text().split("\n")[0].split(",")
    assert {"more4", "more4.accuracy", "triplet.hard"} <= set(columns)
    assert "mAP" in text.splitlines()[-2], "the scores are the last thing"
