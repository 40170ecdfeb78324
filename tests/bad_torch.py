"""The torch half of `bad_parts`."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidcore.modules import Loss, Matcher


class Pool(nn.Module):
    def __init__(self, source, more=0):
        super().__init__()
        self.source = source
        self.more = more

    def forward(self, features, images):
        return {"vector": F.pad(features[self.source].mean((2, 3)), (0, self.more))}


class OneSize(Pool):
    def forward(self, features, images):
        rows = features[self.source].mean((1, 3))
        return {**super().forward(features, images), "rows": rows}


class Forgetful(Pool):
    """Learns its centre outside of its state."""

    centre = 0.0

    def forward(self, features, images):
        vector = super().forward(features, images)["vector"]
        if self.training:
            self.centre = vector.detach().mean(0)
        return {"vector": vector - self.centre}


class Mixing(Pool):
    def forward(self, features, images):
        vector = super().forward(features, images)["vector"]
        return {"vector": vector - vector.mean(0)}


class Blending(Pool):
    """Adds a little of the batch's mean, which hardly shows where all pictures are alike."""

    def forward(self, features, images):
        vector = super().forward(features, images)["vector"]
        return {"vector": vector + 0.1 * vector.mean(0)}


class Narrow(Pool):
    def forward(self, features, images):
        return {"vector": super().forward(features, images)["vector"].float()}


class Unreached(Pool):
    def __init__(self, source):
        super().__init__(source)
        self.spare = nn.Parameter(torch.ones(1))


class Stuck(Pool):
    def __init__(self, source):
        super().__init__(source)
        self.scales = {"all": torch.ones(1)}

    def forward(self, features, images):
        return {"vector": super().forward(features, images)["vector"] * self.scales["all"]}


class Broken(Pool):
    def forward(self, features, images):
        return {"vector": features[self.source] @ torch.ones(3, 3)}


class Leaving(Pool):
    def forward(self, features, images):
        raise SystemExit(5)


class Bare(Pool):
    def forward(self, features, images):
        return super().forward(features, images)["vector"]


class Listed(Pool):
    def forward(self, features, images):
        return {"vector": list(super().forward(features, images)["vector"])}


class Sideways(Pool):
    def forward(self, features, images):
        return {**super().forward(features, images), "turned": features[self.source].mT}


def broken(config, context):
    return Broken(config.source)


def leaving(config, context):
    return Leaving(config.source)


def bare(config, context):
    return Bare(config.source)


def listed(config, context):
    return Listed(config.source)


def returnless(config, context):
    Pool(config.source)


def sideways(config, context):
    return Sideways(config.source)


def spoiled(config, context):
    object.__setattr__(config, "depth", 7)
    return Pool(config.source)


def too_long(config, context):
    return Pool(config.source, 1)


def one_size(config, context):
    return OneSize(config.source)


def picky(config, context):
    return Pool(config.source)


undocumented = elsewhere = thawed = restless = growing = doubling = silent = half = picky


def blending(config, context):
    return Blending(config.source)


def mixing(config, context):
    return Mixing(config.source)


def narrow(config, context):
    return Narrow(config.source)


def unreached(config, context):
    return Unreached(config.source)


def stuck(config, context):
    return Stuck(config.source)


def forgetful(config, context):
    return Forgetful(config.source)


class Small(Loss):
    def __init__(self, feature):
        super().__init__()
        self.feature = feature
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, features, batch):
        self.change(features[self.feature])
        return features[self.feature].square().mean()


class Counting(Small):
    def change(self, vector):
        self.seen += 1


class Overwriting(Small):
    def change(self, vector):
        with torch.no_grad():
            vector *= 2


class Moving(Small):
    def change(self, vector):
        self.calls += 1


def counting(config, context):
    return Counting(config.feature)


def overwriting(config, context):
    return Overwriting(config.feature)


def moving(config, context):
    return Moving(config.feature)


class Vector(Matcher):
    def __init__(self, feature):
        super().__init__()
        self.feature = feature

    def template(self, features):
        return {"vector": features[self.feature]}

    def distance(self, a, b):
        similarity = F.normalize(a["vector"]) @ F.normalize(b["vector"]).T
        return self.change(((1 - similarity) / 2).clamp(0, 1))


class Sound(Vector):
    def change(self, distances):
        return distances


def beside_broken(config, context):
    return Sound(config.feature)


beside_narrow = beside_misnamed = beside_broken


class Batchwise(Vector):
    def change(self, distances):
        return distances / distances.max().clamp(min=1e-9)


class Negative(Vector):
    def change(self, distances):
        return distances - 0.5


class Detached(Vector):
    def change(self, distances):
        return distances.detach()


class Lopsided(Vector):
    def distance(self, a, b):
        return 0.1 + 0.8 * super().distance(a, b) * torch.sigmoid(a["vector"][:, :1])

    def change(self, distances):
        return distances


class OneWay(Matcher):
    """Looks for the query's positions in the gallery picture alone."""

    def __init__(self, feature):
        super().__init__()
        self.feature = feature

    def template(self, features):
        return {"map": features[self.feature]}

    def distance(self, a, b):
        left, right = (F.normalize(x["map"].flatten(2), dim=1) for x in (a, b))
        best = torch.einsum("acp,bcq->abpq", left, right).amax(3).mean(2)
        return ((1 - best) / 2).clamp(0, 1)


class Greedy(Vector):
    def change(self, distances):
        return distances + 0 * distances.amax()


def greedy(config, context):
    return Greedy(config.feature)


def batchwise(config, context):
    return Batchwise(config.feature)


def negative(config, context):
    return Negative(config.feature)


def detached(config, context):
    return Detached(config.feature)


def one_way(config, context):
    return OneWay(config.feature)


def lopsided(config, context):
    return Lopsided(config.feature)


def late(config, context):
    def post(distances, ranking):
        ranking.query.time.add_(60)
        return distances

    return post


def first_wins(config, context):
    return lambda distances, ranking: distances * torch.linspace(0.5, 1, distances.shape[1])


def unnamed(config, context):
    return lambda distances, ranking: distances


undecided = unnamed


def beyond(config, context):
    return lambda distances, ranking: distances + 1


def averaging(config, context):
    return lambda distances, ranking: (distances + distances.mean(1, keepdim=True)) / 2


modest = averaging


def masking(config, context):
    """Averages as `averaging` does, of what is there."""

    def post(distances, ranking):
        scored = ranking.scored(0, len(distances))
        if scored is None:
            scored = torch.ones_like(distances, dtype=torch.bool)
        mean = distances.where(scored, 0).sum(1, keepdim=True) / scored.sum(1, keepdim=True)
        return (distances + mean) / 2

    return post


def voting(config, context):
    """Draws pictures nearer whose camera took many of the query's nearest six, however few are
    scored."""

    def post(distances, ranking):
        near = distances.argsort(dim=1, stable=True)[:, :6]
        cameras = ranking.gallery.camera
        share = (cameras[near][:, :, None] == cameras).float().mean(1)
        return (distances + 1 - share) / 2

    return post


def turned(config, context):
    return lambda distances, ranking: distances.T


class Crossed:
    """Takes the number of pictures of an identity for that of identities."""

    def epoch(self, rows, generator, ask):
        step = len(rows) // len(set(rows.pid.tolist()))
        return [[0, 1, step, step + 1]]


def crossed(config, context):
    return Crossed()


class Careless:
    def epoch(self, rows, generator, ask):
        return torch.randperm(len(rows)).view(-1, 4).tolist()


class Shuffled:
    def epoch(self, rows, generator, ask):
        for _ in range(3):
            yield [0, 1, 2, 3]
            np.random.shuffle([1, 2])


class OfItsOwn:
    def __init__(self):
        self.dice = np.random.default_rng()

    def epoch(self, rows, generator, ask):
        return [self.dice.permutation(len(rows))[:4].tolist()]


def shuffled(config, context):
    return Shuffled()


def shapeless(config, context):
    return Shuffled()


def of_its_own(config, context):
    return OfItsOwn()


class Remembering:
    def __init__(self):
        self.start = 0

    def epoch(self, rows, generator, ask):
        self.start += 1
        return [[self.start % len(rows)] * 4]


class WrongSize:
    def epoch(self, rows, generator, ask):
        return [[0, 1, 2]]


def careless(config, context):
    return Careless()


def remembering(config, context):
    return Remembering()


def wrong_size(config, context):
    return WrongSize()


def moody(config, context):
    return lambda picture, generator: picture // torch.randint(1, 9, ()).to(torch.uint8)


def scaled(config, context):
    return lambda picture, generator: picture / 255


def rare(config, context):
    return lambda picture, generator: picture.flip(2) if np.random.rand() < 1e-9 else picture


def rarer(config, context):
    return lambda picture, generator: picture.flip(2) if random.random() < 1e-9 else picture


def own_dice(config, context):
    dice = np.random.default_rng()
    return lambda picture, generator: picture.flip(2) if dice.random() < 0.2 else picture


def keeping(config, context):
    last = []

    def change(picture, generator):
        last.append(picture)
        return last[-2] if len(last) > 1 else picture

    return change
