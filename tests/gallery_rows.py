"""Rows of random templates for galleries, of pictures that there are not."""

from __future__ import annotations

import pyarrow as pa
import torch

from reid_gallery.adding import commit, write
from reid_gallery.extraction import Extractor
from reid_gallery.rows import Entry
from reidcore.api import Row
from reidcore.tools import Templates


def random_templates(trained, count, seed):
    """Returns rows of cameras 0 to 3, a second apart, with their templates."""
    draw = torch.Generator().manual_seed(seed)
    rows = tuple(
        Row(f"/none/{seed}-{n}.jpg", "", str(n % 4), "gallery", float(n)) for n in range(count)
    )
    parts = {
        name: {
            key: torch.randn(count, *spec.shape, generator=draw)
            for key, spec in trained.plan.matching(name).template.items()
        }
        for name in trained.model.matchers
    }
    return Templates(rows, parts, trained.made_by)


def put(gallery, templates):
    """Adds such rows to a gallery, in one fragment."""
    extractor = Extractor(gallery.search_run, gallery.origin, pa.schema([]))
    entries = [Entry(row) for row in templates.rows]
    found = write(gallery.tables, gallery.origin, extractor.rows(entries, templates.parts))
    assert not commit(gallery.tables, gallery.origin, [found])
