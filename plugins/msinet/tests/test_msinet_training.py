"""The whole network as it is trained: neck, losses, gradients and a step, and what weights it
starts from."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor

from plugins.msinet.tests.msinet_weights import RUN, in_a_run, weights
from reid_msinet.neck import build_neck
from reid_msinet.settings_neck import Neck
from reidcore.api import Feature, Given
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.modules import Batch, Context, Images
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan
from tests.oracles import Vectors, oracle

STORED = {"rtol": 1e-5, "atol": 1e-5}


def model_of(vectors: Vectors, image: tuple[int, int], state: dict[str, Tensor]) -> Model:
    """The whole network in float64, with the file's weights and number of identities."""
    text = RUN.replace("IMAGE", ", ".join(map(str, image)))
    genotype = "".join(vectors.sidecar["genotype"])
    text = text.replace('use = "msinet.net"', f'use = "msinet.net"\ngenotype = "{genotype}"')
    labels = vectors.arrays["train/labels"]
    ids = len(set(labels.tolist()))
    text = text.replace("ids = 3, per_id = 2", f"ids = {ids}, per_id = {len(labels) // ids}")
    plan = make_plan(parse_runfile(text, Path("run.toml")), Plugins(), allow_missing=True)
    given = attrs.evolve(plan.given, identities=vectors.sidecar["num_classes"])
    model = build_model(attrs.evolve(plan, given=given), 0).double()
    own = {
        f"{role}.{key}": value
        for role, part in model.parts()
        for key, value in part.state_dict().items()
        if not key.endswith(("num_batches_tracked", "genotype"))
    }
    assert own.keys() == state.keys(), own.keys() ^ state.keys()
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])
    return model


def batch_of(pixels: Tensor, labels: Tensor | None = None) -> Batch:
    none = torch.zeros(len(pixels), dtype=torch.int64)
    return Batch(Images(pixels.double(), none, none), none if labels is None else labels)


@pytest.mark.oracle
def test_the_network_and_a_training_step_equal_the_authors():
    """Every stage and slot, both retrieval features, logits, an odd number of rows, all losses with
    their gradients to every parameter, and the step that follows."""
    with oracle("msinet/c_network") as vectors:
        state = weights(vectors, "w/", in_a_run)
        x = vectors.input("x")
        model = model_of(vectors, tuple(x.shape[2:]), state).eval()
        _compare_stages(vectors, model, x)
        _compare_counts(vectors, model)
        odd = model_of(vectors, tuple(vectors.arrays["x_odd"].shape[2:]), state).eval()
        features = odd(batch_of(vectors.input("x_odd")).images)
        vectors.compare("eval/feature_odd", features["neck.feature"], rtol=1e-7)
        _compare_training(vectors, model.train())


def _compare_stages(vectors: Vectors, model: Model, x: Tensor) -> None:
    network, neck = model.backbone.network, model.heads["neck"]
    seen: dict[str, Tensor] = {}

    def note(name):
        def hook(module, inputs, output) -> None:
            for part, one in zip(("_short", "_long"), output, strict=True):
                seen[name + part] = one.clone()

        return hook

    for cell in range(1, 7):
        for slot in (1, 2):
            module = network.get_submodule(f"cell{cell}.slot{slot}")
            module.register_forward_hook(note(f"cell{cell}_slot{slot}"))
    pixels = batch_of(x).images
    with torch.no_grad():
        stages = network(pixels.pixels)
        features = model(pixels)
        stem = super(type(network.stem), network.stem).forward(pixels.pixels)
        vectors.compare("eval/stem_conv", stem, **STORED)
        vectors.compare("eval/stem_pool", stages.pop("stem"), **STORED)
        for name, found in (stages | seen).items():
            vectors.compare(f"eval/{name}", found, **STORED)
        vectors.compare("eval/part_squeeze", neck.squeeze(stages["down2"]), **STORED)
        pooled, part = features["neck.pooled"], features["neck.part"]
        vectors.compare("eval/global_fc", neck.embed.linear(pooled), **STORED)
        vectors.compare("eval/part_fc", neck.part_embed.linear(part), **STORED)
        vectors.compare("eval/feature", features["neck.feature"], rtol=1e-7)
        vectors.compare("eval/neck_feature", features["neck.feature_bn"], rtol=1e-7)
        for array, loss, vector in (
            ("eval/logits", "id", "neck.bn"),
            ("eval/part_logits", "part_id", "neck.part_bn"),
        ):
            logits = model.losses[loss].identity_scores(features)[vector]
            vectors.compare(array, logits, rtol=1e-7)


def _compare_counts(vectors: Vectors, model: Model) -> None:
    counts = vectors.sidecar["parameter_count"]
    sizes = {role: sum(p.numel() for p in part.parameters()) for role, part in model.parts()}
    found = {
        "this_file_all": sum(sizes.values()),
        "without_classifiers_with_pam": sum(
            sizes[role] for role in ("backbone", "head.neck", "loss.align")
        ),
        "without_classifiers_without_pam": sizes["backbone"] + sizes["head.neck"],
        "pam_only": sizes["loss.align"],
        "inference_only": sizes["backbone"] + size(model.heads["neck"].squeeze),
        "inference_global_feature_only": sizes["backbone"],
    }
    for key, count in counts.items():
        mine = [number for name, number in found.items() if key.startswith(name)]
        assert mine == [count], key


def _compare_training(vectors: Vectors, model: Model) -> None:
    batch = batch_of(vectors.input("train/x"), vectors.input("train/labels"))
    features = model(batch.images)
    for array, name in (("v", "neck.pooled"), ("p", "neck.part")):
        vectors.compare(f"train/{array}", features[name], rtol=1e-5, atol=1e-9)
    for array, loss, vector in (
        ("logits", "id", "neck.bn"),
        ("part_logits", "part_id", "neck.part_bn"),
    ):
        logits = model.losses[loss].identity_scores(features)[vector]
        vectors.compare(f"train/{array}", logits, rtol=1e-5, atol=1e-9)
    align = model.losses["align"]
    maps = features["backbone.cell6"]
    scores = torch.cat([align.grouped(maps), align.self_activation(maps)[None]])
    vectors.compare("train/sam_scores", scores, rtol=1e-5)
    total, terms = model.loss(features, batch)
    order = ("id", "triplet", "align", "part_id", "part_triplet")
    found = torch.stack([*(terms[name] for name in order), total.detach()])
    vectors.compare("train/losses", found, rtol=1e-5)
    total.backward()
    named = {
        f"{role}.{key}": parameter
        for role, part in model.parts()
        for key, parameter in part.named_parameters()
    }
    parameters = [named[in_a_run(role)] for role in vectors.sidecar["parameter_roles"]]
    none = torch.tensor(torch.nan, dtype=torch.float64)
    norms = [none if p.grad is None else p.grad.norm() for p in parameters]
    vectors.compare("train/grad_norms", torch.stack(norms), rtol=1e-5)
    for array in vectors.names("train/grad/*"):
        parameter = named[in_a_run(array.removeprefix("train/grad/"))]
        vectors.compare(array, parameter.grad, rtol=1e-5, atol=1e-8)
    stem, part_norm = model.backbone.network.stem.norm, model.heads["neck"].part_embed.norm
    vectors.compare("train/stem_bn_mean_after", stem.running_mean, rtol=1e-5)
    vectors.compare("train/stem_bn_var_after", stem.running_var, rtol=1e-5)
    vectors.compare("train/part_bn_var_after", part_norm.running_var, rtol=1e-5)
    before = [p.detach().clone() for p in parameters]
    rate, momentum, decay = (
        vectors.number("train/update_norms", rf"\b{word} ([\de.-]+)")
        for word in ("lr", "momentum", "weight decay")
    )
    torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay).step()
    moved = [(p.detach() - old).norm() for p, old in zip(parameters, before, strict=True)]
    vectors.compare("train/update_norms", torch.stack(moved), rtol=1e-5)


MAPS = {"backbone.cell6": (512, 16, 8), "backbone.down2": (384, 16, 8)}


def neck_of(*wanted: str, **settings):
    features = {name: Feature.map(*shape) for name, shape in MAPS.items()}
    given = Given((256, 128), identities=4, features=features)
    config = Neck(source="backbone.cell6", part_source="backbone.down2", **settings)
    outputs = config.outputs(given)
    return build_neck(config, Context(given, "neck", wanted)), outputs


def size(module) -> int:
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (("feature",), 1_998_819 - 1_949_539),
        (("pooled",), 0),
        (("pooled", "bn"), 512 * 512 + 2 * 512),
        (("feature_bn", "pooled"), 378_496),
    ],
)
def test_a_neck_has_what_is_read(wanted, count):
    """For retrieval no linear layers and norms, for the global vector nothing at all."""
    neck, outputs = neck_of(*wanted)
    assert size(neck) == count
    maps = {name: torch.rand(2, *shape) for name, shape in MAPS.items()}
    made = neck(maps, batch_of(torch.zeros(2, 3, 1, 1)).images)
    assert set(made) == set(wanted)
    for name, vector in made.items():
        assert vector.shape == (2, *outputs[name].shape)


@pytest.mark.parametrize(
    ("feature", "count"), [("feature", 1_998_819), ("pooled", 1_949_539), ("feature_bn", 2_328_035)]
)
def test_retrieval_drops_what_it_does_not_read(feature, count):
    """Without losses the model has what the matcher's feature needs."""
    text = RUN.replace("IMAGE", "256, 128").replace('"neck.feature", "neck.feature_bn"', "NAME")
    text = text.partition("[[loss]]")[0].replace("NAME", f'"neck.{feature}"')
    text += "[train]\nepochs = 0\n"
    plan = make_plan(parse_runfile(text, Path("run.toml")), Plugins(), allow_missing=True)
    assert size(build_model(plan, 0)) == count


def test_cdnets_neck():
    """512 numbers behind both layers, which end with ReLU and a trained shift; 66,944 parameters
    more than the other; the upper half has the middle row."""
    neck, outputs = neck_of("bn", "part_bn", "part", form="cdnet")
    assert size(neck) - 378_496 == 66_944
    assert outputs["feature_bn"].shape == (1024,)
    maps = {"backbone.cell6": torch.rand(4, 512, 5, 4), "backbone.down2": torch.rand(4, 384, 5, 4)}
    made = neck(maps, batch_of(torch.zeros(4, 3, 1, 1)).images)
    squeezed = neck.squeeze(maps["backbone.down2"])
    halves = torch.cat([squeezed[:, :, :3].mean((2, 3)), squeezed[:, :, 3:].mean((2, 3))], 1)
    torch.testing.assert_close(made["part"], halves)
    assert made["bn"].min() == 0 and made["part_bn"].min() == 0
    assert all(parameter.requires_grad for parameter in neck.parameters())
