"""Components that each break one promise, for the tests of the conformance kit."""

from __future__ import annotations

from pathlib import Path
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


@attrs.define
class ThawedHead:
    source: MapName = setting("a map")

    outputs = Head.outputs


@attrs.define
class RestlessHead:
    source: MapName = setting("a map")
    depth: int = setting("changed in wiring", default=1)

    def outputs(self, given):
        self.depth += 1
        return Head.outputs(self, given)


@attrs.frozen
class GrowingHead(Head):
    sizes: list[int] = setting("grows in wiring", default=[1])

    def outputs(self, given):
        self.sizes.append(2)
        return super().outputs(given)


@attrs.frozen
class DoublingHead(Head):
    depth: int = setting("doubled where the settings are made", default=1)

    def __attrs_post_init__(self):
        object.__setattr__(self, "depth", 2 * self.depth)


@attrs.frozen
class SpoiledHead(Head):
    depth: int = setting("changed where the head is built", default=1)


@attrs.frozen
class SilentHead(Head):
    def outputs(self, given):
        super().outputs(given)


@attrs.frozen
class HalfHead(Head):
    def outputs(self, given):
        return {"vector": Feature.vector(given.map(self.source)[0] / 1)}


@attrs.frozen
class OneVector:
    feature: VectorName = setting("a vector")

    def check(self, given):
        pass

    def describe(self, given):
        template = {"vector": TensorSpec((given.vector(self.feature),))}
        return Matching(template, unit=True, symmetric=True)


@attrs.frozen
class OneMap:
    feature: MapName = setting("a map")

    def describe(self, given):
        template = {"map": TensorSpec(given.map(self.feature))}
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
class UndecidedPost:
    def check(self, given):
        given.need_unit()


@attrs.frozen
class ShapelessSampler:
    def check(self, given):
        pass

    def batch(self):
        BatchShape(4)


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


@attrs.frozen
class FactlessReader(Reader):
    def facts(self):
        return attrs.asdict(super().facts())


@attrs.frozen
class NumberedReader(Reader):
    def rows(self, root):
        return [attrs.evolve(row, camera=int(row.camera)) for row in super().rows(root)]


@attrs.frozen
class SplitReader(Reader):
    def rows(self, root):
        return [attrs.evolve(row, split=row.split.title()) for row in super().rows(root)]


@attrs.frozen
class RelativeReader(Reader):
    def rows(self, root):
        return [attrs.evolve(row, path=Path(row.path).name) for row in super().rows(root)]


@attrs.frozen
class RowlessReader(Reader):
    def rows(self, root):
        super().rows(root)


def _bad(name: str, config: type, text: str) -> Component:
    return Component(name, config, f"bad_torch:{name}", "bad", sample=text)


def _loss(name: str) -> Component:
    used = sample(loss=f"bad.{name}", loss_features='feature = "neck.bn"')
    return _bad(name, OneVector, used)


def _matcher(name: str, feature: str = "neck.bn", **others: str) -> Component:
    used = sample(matcher=f"bad.{name}", features=f'feature = "{feature}"', **others)
    return _bad(name, OneVector, used)


def _reader(name: str, config: type, root: str = "pictures") -> Component:
    used = sample(reader=f'read = "bad.{name}", root = "{root}"')
    return Component(name, config, "", "bad", sample=used)


def _post(name: str, config: type = Post) -> Component:
    return _bad(name, config, sample(post=f'[[post]]\nuse = "bad.{name}"\n'))


def _deep(name: str) -> str:
    """The sample with `depth = 3` in the head's table."""
    use = f'use = "bad.{name}"'
    return sample(head=f"bad.{name}").replace(use, f"{use}\ndepth = 3")


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
                for name in (
                    "mixing",
                    "blending",
                    "narrow",
                    "unreached",
                    "stuck",
                    "broken",
                    "leaving",
                )
            ),
            *(
                _bad(name, Head, sample(head=f"bad.{name}"))
                for name in ("bare", "listed", "returnless")
            ),
            Component(
                "misnamed", Head, "bad_torch:sidewise", "bad", sample=sample(head="bad.misnamed")
            ),
            _bad("thawed", ThawedHead, sample(head="bad.thawed")),
            _bad("restless", RestlessHead, sample(head="bad.restless")),
            _bad("growing", GrowingHead, sample(head="bad.growing")),
            _bad("doubling", DoublingHead, _deep("doubling")),
            _bad("spoiled", SpoiledHead, sample(head="bad.spoiled")),
            _bad("silent", SilentHead, sample(head="bad.silent")),
            _bad("half", HalfHead, sample(head="bad.half")),
        ]

    @hookimpl
    def reid_losses(self) -> Any:
        return [_loss("counting"), _loss("overwriting"), _loss("moving")]

    @hookimpl
    def reid_matchers(self) -> Any:
        names = ("batchwise", "negative", "detached", "lopsided", "greedy")
        return [
            *(_matcher(name) for name in names),
            _bad(
                "one_way",
                OneMap,
                sample(matcher="bad.one_way", features='feature = "backbone.layer4"'),
            ),
            _matcher("beside_broken", head="bad.broken"),
            _matcher("beside_misnamed", head="bad.misnamed"),
            _matcher("beside_narrow", "head.vector", head="bad.narrow"),
        ]

    @hookimpl
    def reid_postprocessors(self) -> Any:
        unnamed = _bad("unnamed", TimelessPost, sample(post='[[post]]\nuse = "bad.unnamed"\n'))
        modest = _bad("modest", WholePost, sample(post='[[post]]\nuse = "bad.modest"\n'))
        names = ("late", "first_wins", "beyond", "averaging", "voting", "masking", "turned")
        undecided = _post("undecided", UndecidedPost)
        return [*map(_post, names), undecided, unnamed, modest]

    @hookimpl
    def reid_samplers(self) -> Any:
        names = ("careless", "remembering", "wrong_size", "shuffled", "of_its_own")
        kinds = dict.fromkeys(names, Sampler)
        kinds |= {"shapeless": ShapelessSampler, "crossed": PairSampler}
        return [
            _bad(name, config, sample(batch=f'use = "bad.{name}"'))
            for name, config in kinds.items()
        ]

    @hookimpl
    def reid_augmentations(self) -> Any:
        names = ("moody", "scaled", "rare", "rarer", "own_dice", "keeping")
        texts = [sample(augment=f'{{ use = "bad.{name}" }}') for name in names]
        return [_bad(name, Augmentation, text) for name, text in zip(names, texts, strict=True)]

    @hookimpl
    def reid_readers(self) -> Any:
        return [
            _reader("miscounted", Reader),
            _reader("absent", Reader, root="nowhere"),
            _reader("factless", FactlessReader, root="nowhere"),
            _reader("rowless", RowlessReader),
            _reader("numbered", NumberedReader),
            _reader("misspelt", SplitReader),
            _reader("relative", RelativeReader),
        ]
