"""Random pictures, rows and answers to feed components with."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.contracts.given import Given
from reidcore.contracts.parts import Matcher, Template
from reidcore.contracts.pictures import Batch, Images, Meta, Rows
from reidcore.model.model import Model
from reidcore.ranking.templates import view_of
from reidcore.support.seeds import seeded
from reidcore.testing.failures import ConformanceError
from reidcore.training.dry_run import random_batch
from reidcore.wiring.plan import Plan


def pictures(plan: Plan, count: int, seed: int = 0) -> Images:
    """Return `count` random pictures of all modalities, if these are not more, and cameras.

    Each has patches of its own colours: to a network that is not trained, pictures of noise alone
    are nearly the same.
    """
    images: list[Images] = []
    while sum(map(len, images)) < count:
        images.append(random_batch(plan, torch.device("cpu"), seed + len(images)).images)
    modality = torch.cat([one.modality for one in images])
    # Modalities in turns, so that each is among the first pictures.
    turn = (modality[:, None] == modality).tril().sum(1)
    order = turn.argsort(stable=True)[:count]
    noise = torch.cat([one.pixels for one in images])[order]
    colours = torch.rand(len(noise), 3, 4, 2, generator=torch.Generator().manual_seed(seed))
    return Images(
        (noise + 3 * F.interpolate(colours, noise.shape[2:])) / 4,
        modality[order],
        torch.cat([one.camera for one in images])[order],
    )


def batch_of(plan: Plan) -> Batch:
    """Return a random batch, always the same one."""
    return random_batch(plan, torch.device("cpu"), seed=7)


@torch.no_grad()
def template_of(model: Model, matcher: Matcher, images: Images, shuffled: bool = False) -> Template:
    """Return the template that ranking stores of the pictures; if `shuffled`, that of features
    which differ more."""
    model.eval()
    views = [model(view_of(images, view)) for view in model.plan.given.views]
    if shuffled:
        views = [_shuffled(features) for features in views]
    return matcher.merge([matcher.template(features) for features in views])


def _shuffled(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return features whose channels stand in an order of its own at each picture and place.

    Those of a network that is not trained are nearly alike everywhere, so that a fault in how they
    are compared may not show. Signs and lengths stay as the network gives them.
    """
    found = {}
    for place, (name, value) in enumerate(sorted(features.items())):
        axis = 1 if value.ndim == 4 else -1
        draw = torch.rand(value.shape, generator=torch.Generator().manual_seed(place))
        found[name] = value.gather(axis, draw.argsort(axis))
    return found


def meta_of(images: Images, seed: int) -> Meta:
    """Return the cameras and modalities of pictures, with random times within an hour."""
    draw = torch.Generator().manual_seed(seed)
    times = torch.rand(len(images), generator=draw, dtype=torch.float64) * 3600
    return Meta(images.camera, times, images.modality)


def toy_rows(given: Given, identities: int, each: int = 4) -> Rows:
    """Return rows without pictures: `each` of every identity in every modality, by all cameras."""
    count = identities * each * max(1, len(given.modalities))
    order = np.arange(count)
    return Rows(
        paths=[f"/toy/{i}.jpg" for i in order],
        pid=order % identities,
        camera=order // identities % max(1, given.cameras),
        time=order.astype(np.float64),
        modality=order // (identities * each),
        names=[str(i) for i in range(identities)],
        listed=[f"toy row {i}" for i in order],
    )


class ToyAsk:
    """Answers a sampler with numbers that follow from the pictures' indices alone."""

    def __init__(self, given: Given):
        self._given = given

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        shape = self._given.feature(name).shape
        return torch.stack([_noise(int(index), shape) for index in indices])

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        assert matcher in self._given.matchers, f"there is no matcher {matcher!r}"
        return torch.cat([_noise(int(i) + 10**6, (1, 10**4))[:, list(b)].abs() for i in a])


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Return normal random numbers that follow from the seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_global_seed(seed: int, function: Callable[[], Any]) -> Any:
    """Call a function with the global random generators in a state of this seed."""
    with seeded("conformance"):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        return function()


def without_global_draws(seed: int, function: Callable[[], Any]) -> Any:
    """Call a function with the global random generators in a state of this seed. Raises
    ConformanceError if it draws from one of them."""

    def watched() -> Any:
        before = _states()
        found = function()
        after = _states()
        drawn = [name for name, state in before.items() if state != after[name]]
        if drawn:
            raise ConformanceError(
                f"it draws from {' and '.join(drawn)}; draw from the generator that is handed over "
                "alone, else a run that goes on after a break, or with other workers, differs"
            )
        return found

    return with_global_seed(seed, watched)


def _states() -> dict[str, Any]:
    """Return the states of the global random generators, by name."""
    return {
        "Python's global generator (random)": random.getstate(),
        "NumPy's global generator (np.random)": pickle.dumps(np.random.get_state(legacy=False)),
        "torch's global generator": torch.random.get_rng_state().numpy().tobytes(),
    }
