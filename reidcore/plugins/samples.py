"""Sample runs: the smallest run files in which a component stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidcore.support.toml_values import toml_value

Table = Mapping[str, Any]
Tables = Table | Sequence[Table]

LISTED = ("head", "matcher", "loss", "post", "ranking")
"""Tables of which a run file may have several, as [[head]]."""

DEMO: Table = {"read": "core.demo", "train_identities": 4, "test_identities": 2, "pictures": 8}
IDENTITIES: Table = {"use": "core.identities", "ids": 2, "per_id": 2}
BACKBONE: Table = {"use": "core.resnet", "depth": 18, "width": 0.125}
HEAD: Table = {"name": "neck", "use": "core.bnneck", "source": "backbone.layer4"}
MATCHER: Table = {"name": "look", "use": "core.cosine", "features": ["neck.bn"]}
LOSS: Table = {"name": "id", "use": "core.softmax", "features": ["neck.bn"]}


def sample_run(
    *,
    data: Table = DEMO,
    image: tuple[int, int] = (64, 32),
    augment: Sequence[Table] = (),
    batch: Table = IDENTITIES,
    backbone: Table = BACKBONE,
    head: Tables = HEAD,
    matcher: Tables = MATCHER,
    loss: Tables = LOSS,
    **others: Tables,
) -> str:
    """Return the text of a small run file, for `Component.sample`.

    Only the tables that matter for the component have to be given; the defaults of the others are
    parts of the core on a few drawn pictures. A table that is given takes the place of the whole
    default.

    Args:
        data: The entry of `data.train`, and of `data.test`.
        image: Height and width of the pictures in pixels.
        augment: Augmentations, as in `[data]`.
        batch: The sampler, as in `[data]`.
        backbone: The backbone.
        head: One head, or a list of heads; an empty list for none.
        matcher: Matchers, likewise.
        loss: Losses, likewise.
        others: Further tables by name, such as `post`, `procedure` and `eval`, or `train` and
            `optim` in place of their defaults.

    Example:
        >>> from reidcore.api import sample_run
        >>> print(sample_run(
        ...     head=dict(name="gem", use="spots.gem", source="backbone.layer4", p=3.0),
        ...     matcher=dict(name="look", use="core.cosine", features=["gem.vector"]),
        ...     loss=dict(name="id", use="core.softmax", features=["gem.vector"]),
        ... ))
        format = 1
        <BLANKLINE>
        [data]
        train = { read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }
        test = [{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }]
        image = [64, 32]
        augment = []
        batch = { use = "core.identities", ids = 2, per_id = 2 }
        <BLANKLINE>
        [backbone]
        use = "core.resnet"
        depth = 18
        width = 0.125
        <BLANKLINE>
        [[head]]
        name = "gem"
        use = "spots.gem"
        source = "backbone.layer4"
        p = 3.0
        <BLANKLINE>
        [[matcher]]
        name = "look"
        use = "core.cosine"
        features = ["gem.vector"]
        <BLANKLINE>
        [[loss]]
        name = "id"
        use = "core.softmax"
        features = ["gem.vector"]
        <BLANKLINE>
        [train]
        epochs = 1
        <BLANKLINE>
        [optim]
        lr = 0.001
        <BLANKLINE>
    """
    tables: dict[str, Tables] = {
        "data": {
            "train": data,
            "test": [data],
            "image": image,
            "augment": augment,
            "batch": batch,
        },
        "backbone": backbone,
        "head": head,
        "matcher": matcher,
        "loss": loss,
        "train": {"epochs": 1},
        "optim": {"lr": 0.001},
        **others,
    }
    return run_file_text(tables)


def run_file_text(tables: Mapping[str, Tables]) -> str:
    """Return the text of a run file with these tables, by their names and in their order."""
    blocks = ["format = 1\n"]
    for name, given in tables.items():
        header = f"[[{name}]]" if name in LISTED else f"[{name}]"
        for table in [given] if isinstance(given, Mapping) else given:
            lines = [f"{key} = {toml_value(value)}\n" for key, value in table.items()]
            blocks.append(f"{header}\n{''.join(lines)}")
    return "\n".join(blocks)
