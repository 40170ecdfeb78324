"""Writes docs/compositions.md: what fits with what, of the core and the plugins in this repository.

    uv run python docs/compositions.py

Every cell is a run file that is put together and wired; where its parts do not fit, the cell names
the note with what the core says. A test fails where the committed page is not what this makes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.mixing import Chain, Mixer

PAGE = Path(__file__).with_name("compositions.md")
PLUGINS = ("core", "airnet", "ddag", "ipad", "metric_learning", "msinet", "qaconv", "timm")
INTRODUCTION = """\
# What fits with what

Every cell of these tables is a run file that `tests/mixing.py` puts together from the components'
samples: a backbone, `core.bnneck` on its last map, a head, a matcher on what the head gives (or on
heads of its own, where it needs what the head does not give), a loss, and a chain of
postprocessors. What a table does not name is `core.resnet`, `core.bnneck`, `core.cosine`,
`core.softmax` and no postprocessor; a loss on a matcher brings the one of its sample. A cell is
"yes" where the core's wiring accepts the run, else the number of a note with its refusal.

This page is made by `uv run python docs/compositions.py`; a test compares it. `pytest -m slow
tests/testing/test_mixing.py` trains and ranks every backbone with every head and every matcher,
losses and chains taking turns; the other tests run few compositions, with each pair below in one of
them. In a clone of this repository, a plugin of your own is mixed with the core's components by:

```python
from tests.mixing import Mixer

mixer = Mixer(names=["core", "mine"])
for mix in mixer.covering():
    print(mix, mixer.refusal(mix) or "runs")
```
"""
TABLES = (
    ("Heads on backbones", "head", "backbone"),
    ("Matchers on backbones", "matcher", "backbone"),
    ("Matchers on heads", "matcher", "head"),
    ("Losses on backbones", "loss", "backbone"),
    ("Losses on heads", "loss", "head"),
    ("Losses and matchers", "loss", "matcher"),
    ("Postprocessors behind matchers", "post", "matcher"),
)


def page(mixer: Mixer) -> str:
    """The whole text."""
    notes: dict[str, int] = {}
    parts = [INTRODUCTION]
    for title, down, across in TABLES:
        parts += [f"## {title}\n", _table(mixer, down, across, notes)]
    parts.append("## Notes\n")
    parts += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(parts) + "\n"


def _table(mixer: Mixer, down: str, across: str, notes: dict[str, int]) -> str:
    columns = mixer.choices[across]
    rows = [f"| | {' | '.join(map(_name, columns))} |", f"| --- |{' --- |' * len(columns)}"]
    for value in mixer.choices[down]:
        cells = []
        for other in columns:
            refusal = mixer.refusal(mixer.plain(**{down: value, across: other}), dry=False)
            cells.append(
                f"[{notes.setdefault(refusal, len(notes) + 1)}](#notes)" if refusal else "yes"
            )
        rows.append(f"| {_name(value)} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _name(value: Any) -> str:
    return str(value) if isinstance(value, Chain) else f"`{value}`"


def main() -> int:
    PAGE.write_text(page(Mixer(names=PLUGINS)), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
