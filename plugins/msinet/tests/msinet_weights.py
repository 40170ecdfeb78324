"""Weights of the oracle files, under this plugin's names."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reid_msinet.genotypes import OPERATIONS
from tests.oracles import Vectors

NORM = {
    "bn.gamma": "norm.weight",
    "bn.beta": "norm.bias",
    "bn.mean": "norm.running_mean",
    "bn.var": "norm.running_var",
}


def own_role(role: str) -> str:
    """This plugin's name of a role of the side-cars, such as cell1.short.pre.0.bn.gamma."""
    for theirs, ours in NORM.items():
        role = re.sub(rf"\b{re.escape(theirs)}$", ours, role)

    def candidate(found: re.Match[str]) -> str:
        return f".candidates.{list(OPERATIONS)[int(found[1])]}."

    return re.sub(r"\.cand(\d)\.", candidate, role)


def weights(vectors: Vectors, prefix: str, named: Callable[[str], str] = own_role) -> dict:
    """Every array under the prefix, noted as an input, by our name of its role."""
    found = {}
    for array in vectors.names(f"{prefix}*"):
        role = vectors.sidecar["arrays"][array].get("role")
        if role is not None:
            found[named(role)] = vectors.input(array)
    return found


def fill(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The module in float64 with exactly these weights; batch norms' counters and what a network
    remembers of its genotype are no weights."""
    module.double()
    own = {
        key: value
        for key, value in module.state_dict().items()
        if not key.endswith(("num_batches_tracked", "genotype", "alpha"))
    }
    assert own.keys() == state.keys(), own.keys() ^ state.keys()
    with torch.no_grad():
        for key, value in own.items():
            assert value.shape == state[key].shape, key
            value.copy_(state[key])
    return module


ROLES = {
    "global.fc": "head.neck.embed.linear",
    "global.bn": "head.neck.embed.bn",
    "global.classifier": "loss.id.classifier",
    "part.squeeze": "head.neck.squeeze",
    "part.fc": "head.neck.part_embed.linear",
    "part.bn": "head.neck.part_embed.bn",
    "part.classifier": "loss.part_id.classifier",
    "pam.query": "loss.align.attention.query",
    "pam.key": "loss.align.attention.key",
}
"""Where the side-car's roles beyond the backbone are in a run."""


RUN = """
format = 1
[data]
train = { read = "core.market1501", root = "none" }
image = [IMAGE]
batch = { use = "core.identities", ids = 3, per_id = 2 }
[backbone]
use = "msinet.net"
[[head]]
name = "neck"
use = "msinet.neck"
source = "backbone.cell6"
part_source = "backbone.down2"
[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.feature", "neck.feature_bn"]
[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]
smoothing = 0.1
bias = true
[[loss]]
name = "triplet"
use = "core.triplet"
feature = "neck.pooled"
metric = "unit"
[[loss]]
name = "align"
use = "msinet.sam"
source = "backbone.cell6"
weight = 2.0
[[loss]]
name = "part_id"
use = "core.softmax"
features = ["neck.part_bn"]
smoothing = 0.1
bias = true
[[loss]]
name = "part_triplet"
use = "core.triplet"
feature = "neck.part"
metric = "unit"
[train]
epochs = 1
[optim]
lr = 0.065
"""


def in_a_run(role: str) -> str:
    for theirs, ours in ROLES.items():
        if role.startswith(theirs + "."):
            return own_role(role.replace(theirs, ours, 1))
    return f"backbone.network.{own_role(role)}"
