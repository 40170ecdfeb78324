"""Components that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

from typing import Any

import attrs

from reidcore.api import (
    BatchShape,
    Component,
    Facts,
    Feature,
    MapName,
    Matching,
    Row,
    TensorSpec,
    VectorName,
    WiringError,
    hookimpl,
    setting,
)

SAMPLE = """\
format = 1

[data]
train = {{ {reader} }}
test = [{{ {reader} }}]
image = [64, 32]
augment = [{augment}]
batch = {{ {batch} }}

[backbone]
use = "core.resnet"
depth = 18
width = 0.125

[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"

[[head]]
name = "head"
use = "{head}"
source = "backbone.layer4"

[[matcher]]
name = "look"
use = "{matcher}"
{features}

[[loss]]
name = "id"
use = "core.softmax"
features = ["head.vector"]

[[loss]]
name = "loss_of"
use = "{loss}"
{loss_features}

{post}
[train]
epochs = 1

[optim]
lr = 0.001
"""


def sample(**changes: str) -> str:
    """The sample with some of its parts replaced."""
    parts = {
        "reader": 'read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8',
        "augment": "",
        "batch": 'use = "core.identities", ids = 2, per_id = 2',
        "head": "core.pool",
        "matcher": "core.cosine",
        "features": 'features = ["neck.bn"]',
        "loss": "core.softmax",
        "loss_features": 'features = ["neck.bn"]',
        "post": "",
    }
    return SAMPLE.format(**{**parts, **changes})


SQUARE = sample(head="bad.sideways").replace("[64, 32]", "[64, 64]")


@attrs.frozen
class Head:
    source: MapName = setting("a map")

    def outputs(self, given):
        return {"vector": Feature.vector(given.map(self.source)[0])}


@attrs.frozen
class FixedHead(Head):
    def outputs(self, given):
        return {"vector": Feature.vector(64), "rows": Feature.tensor(4)}


@attrs.frozen
class SidewaysHead(Head):
    def outputs(self, given):
        return {**super().outputs(given), "turned": Feature.map(*given.map(self.source))}


@attrs.frozen
class PickyHead(Head):
    def outputs(self, given):
        rows = given.map(self.source)[1]
        given.need(rows == 4, "source", f"needs a map with 4 rows, but it has {rows}")
        return super().outputs(given)


@attrs.frozen
class UndocumentedHead(Head):
    depth: int = 1


@attrs.frozen
class OneVector:
    feature: VectorName = setting("a vector")

    def check(self, given):
        pass

    def describe(self, given):
        template = {"vector": TensorSpec((given.vector(self.feature),))}
        return Matching(template, unit=True, symmetric=True)


@attrs.frozen
class Post:
    def check(self, given):
        return True


@attrs.frozen
class WholePost:
    def check(self, given):
        given.need_every_distance()
        return True


@attrs.frozen
class TimelessPost:
    def check(self, given):
        if "time" not in given.test_columns:
            raise WiringError("", "needs something that is not there")
        return True


@attrs.frozen
class Sampler:
    def check(self, given):
        pass

    def batch(self):
        return BatchShape(4)


@attrs.frozen
class PairSampler:
    def check(self, given):
        pass

    def batch(self):
        return BatchShape(4, 2, 2)


@attrs.frozen
class Augmentation:
    pass


@attrs.frozen
class Reader:
    def facts(self):
        return Facts(4, cameras=("1", "2"), counts={"train": 9})

    def rows(self, root):
        files = sorted(root.iterdir())
        return [
            Row(str(file), str(i % 4), str(i % 2 + 1), ("train", "query", "gallery")[i // 8])
            for i, file in enumerate(files)
        ]


def _bad(name: str, config: type, text: str) -> Component:
    return Component(name, config, f"bad_torch:{name}", "bad", sample=text)


def _loss(name: str) -> Component:
    used = sample(loss=f"bad.{name}", loss_features='feature = "neck.bn"')
    return _bad(name, OneVector, used)


def _matcher(name: str) -> Component:
    used = sample(matcher=f"bad.{name}", features='feature = "neck.bn"')
    return _bad(name, OneVector, used)


def _post(name: str) -> Component:
    return _bad(name, Post, sample(post=f'[[post]]\nuse = "bad.{name}"\n'))


class Plugin:
    """Hooks of the plugin `bad`."""

    __name__ = "bad_parts"

    @hookimpl
    def reid_heads(self) -> Any:
        return [
            _bad("too_long", Head, sample(head="bad.too_long")),
            _bad("one_size", FixedHead, sample(head="bad.one_size")),
            _bad("picky", PickyHead, sample(head="bad.picky")),
            _bad("sideways", SidewaysHead, SQUARE),
            _bad("forgetful", Head, sample(head="bad.forgetful")),
            _bad("undocumented", UndocumentedHead, sample(head="bad.undocumented")),
            Component("without_sample", Head, "bad_torch:picky", "bad"),
            _bad("elsewhere", Head, sample()),
            *(
                _bad(name, Head, sample(head=f"bad.{name}"))
                for name in ("mixing", "narrow", "unreached", "stuck")
            ),
        ]

    @hookimpl
    def reid_losses(self) -> Any:
        return [_loss("counting"), _loss("overwriting"), _loss("moving")]

    @hookimpl
    def reid_matchers(self) -> Any:
        names = ("batchwise", "negative", "detached", "lopsided", "greedy")
        return [_matcher(name) for name in names]

    @hookimpl
    def reid_postprocessors(self) -> Any:
        unnamed = _bad("unnamed", TimelessPost, sample(post='[[post]]\nuse = "bad.unnamed"\n'))
        modest = _bad("modest", WholePost, sample(post='[[post]]\nuse = "bad.modest"\n'))
        names = ("late", "first_wins", "beyond", "averaging", "voting", "masking", "turned")
        return [*map(_post, names), unnamed, modest]

    @hookimpl
    def reid_samplers(self) -> Any:
        kinds = dict.fromkeys(("careless", "remembering", "wrong_size"), Sampler)
        kinds["crossed"] = PairSampler
        return [
            _bad(name, config, sample(batch=f'use = "bad.{name}"'))
            for name, config in kinds.items()
        ]

    @hookimpl
    def reid_augmentations(self) -> Any:
        names = ("moody", "scaled")
        texts = [sample(augment=f'{{ use = "bad.{name}" }}') for name in names]
        return [_bad(name, Augmentation, text) for name, text in zip(names, texts, strict=True)]

    @hookimpl
    def reid_readers(self) -> Any:
        return [
            Component(
                "miscounted",
                Reader,
                "",
                "bad",
                sample=sample(reader='read = "bad.miscounted", root = "pictures"'),
            )
        ]
