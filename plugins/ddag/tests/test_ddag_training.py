"""The whole of DDAG behind a network: losses, gradients and a short training of the authors'."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ddag.published import own_name, sections
from reid_ddag.settings_two_stream import TwoStream
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.modules import Batch, Images
from reidcore.runfiles.tables import Optim
from reidcore.training.optimizers import rate_factor
from reidcore.wiring.plan import Plan
from tests.oracles import Vectors, folder, oracle
from tests.packaged import packaged_plan

pytestmark = pytest.mark.oracle


def plan_of(name: str, *sets: str) -> Plan:
    return packaged_plan("ddag", name, "backbone.weights=", *sets)


class Given(nn.Module):
    """In place of a backbone, maps that are handed over as pixels."""

    def forward(self, images: Images) -> dict[str, Tensor]:
        return {"layer4": images.pixels}


class Small(nn.Module):
    """The program's stand-in for a backbone, under its names."""

    def __init__(self, inner: int, channels: int):
        super().__init__()
        for stem in ("visible_module", "thermal_module"):
            self.add_module(stem, nn.ModuleDict({"c": nn.Conv2d(3, inner, 1)}))
        self.base_resnet = nn.ModuleDict(
            {"c": nn.Conv2d(inner, channels, 1), "b": nn.BatchNorm2d(channels)}
        )

    def forward(self, images: Images) -> dict[str, Tensor]:
        stems = (self.visible_module["c"], self.thermal_module["c"])
        halves = images.pixels.split(int((images.modality == 0).sum()))
        maps = torch.cat([stem(half).relu() for stem, half in zip(stems, halves, strict=True)])
        return {"layer4": self.base_resnet["b"](self.base_resnet["c"](maps)).relu()}


def plan_for(vectors: Vectors) -> Plan:
    """`ddag:sysu` of the file's sizes."""
    config = vectors.sidecar["config"]
    plan = plan_of(
        "sysu",
        f"loss.graph.dim={config['low_dim']}",
        "loss.graph.dropout=0.0",
        f"data.image=[{config['H'] * 16}, {config['W'] * 16}]"
        if "C" in config
        else f"data.image=[{config['H']}, {config['W']}]",
        f"head.parts.parts={config['parts']}",
        f"loss.graph.heads={config['heads']}",
    )
    plan.given.identities = config["n_class"]
    return plan


def model_of(vectors: Vectors, backbone: nn.Module) -> Model:
    """`ddag:sysu` of the file's sizes in float64, on a backbone with fewer channels."""
    plan, channels = plan_for(vectors), vectors.sidecar["config"]["C"]
    plan.given.features = {
        name: attrs.evolve(feature, shape=(channels, *feature.shape[1:]))
        for name, feature in plan.given.features.items()
    }
    plan = attrs.evolve(plan, backbone=attrs.evolve(plan.backbone, config=TwoStream(depth=18)))
    model = build_model(plan, 0)
    model.backbone = backbone
    return model.double()


def place_of(model: Model, key: str) -> Tensor:
    """The model's tensor that belongs to a key of the program, a view in the program's shape."""
    parts = dict(model.parts())
    if isinstance(parts["backbone"], Small) and key.split(".")[1] in ("c", "b"):
        return parts["backbone"].state_dict(keep_vars=True)[key]
    name = own_name(key)
    assert name is not None, key
    where, instance, rest = name.split(".", 2)
    if where == "backbone":
        return parts["backbone"].state_dict(keep_vars=True)[f"{instance}.{rest}"]
    state = parts[f"{where}.{instance}"].state_dict(keep_vars=True)
    if not rest.endswith((".W", ".a")):
        return state[rest]
    layer, _, kind = rest.rpartition(".")
    layer, _, head = layer.partition(".")
    return state[f"{layer}.{'weight' if kind == 'W' else 'score'}"][int(head or 0)]


def fill(model: Model, state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for key, value in state.items():
            place = place_of(model, key)
            place.copy_(value.reshape(place.shape))


def load(model: Model, vectors: Vectors, prefix: str) -> list[str]:
    """Gives the model the file's tensors; returns their keys."""
    keys = [name.removeprefix(prefix) for name in vectors.names(f"{prefix}*")]
    fill(model, {key: vectors.input(prefix + key) for key in keys})
    return keys


def same_shape(vectors: Vectors, name: str, value: Tensor) -> Tensor:
    return value.reshape(vectors.arrays[name].shape)


def batch_of(pixels: Tensor, labels: Tensor) -> Batch:
    half = len(labels) // 2
    modality = torch.tensor([0] * half + [1] * half)
    return Batch(Images(pixels, modality, torch.zeros_like(modality)), labels)


def separate(model: Model, features: dict[str, Tensor], pid: Tensor) -> dict[str, Tensor]:
    """The program's terms: L_id and L_wp, which are one loss of two features here, and L_P."""
    classifier = model.losses["id"].classifier
    found = {
        "id": F.cross_entropy(classifier(features["neck.bn"]), pid),
        "wp": F.cross_entropy(classifier(features["parts.x"]), pid),
    }
    return found


def test_losses_and_gradients_equal_the_programs():
    """On given maps the packaged run's parts give the program's features, logits, losses,
    gradients and running statistics."""
    with oracle("ddag/loss_composition") as vectors:
        config = vectors.sidecar["config"]
        model = model_of(vectors, Given())
        keys = load(model, vectors, "w_")
        halves = [vectors.input(f"map_{kind}") for kind in ("visible", "infrared")]
        maps = torch.cat(halves).requires_grad_()
        labels = vectors.input("labels")
        assert labels.unique().tolist() == config["ids"]
        batch = batch_of(maps, labels)
        close = {"rtol": 1e-9, "atol": 1e-12}
        features = model.eval()(batch.images)
        vectors.compare("eval_feat_l2", F.normalize(features["neck.bn"]), **close)
        vectors.compare("eval_feat_att_l2", F.normalize(features["parts.x"]), **close)

        features = model.train()(batch.images)
        vectors.compare("train_x_pool", features["neck.pooled"], **close)
        classifier, graph = model.losses["id"].classifier, model.losses["graph"]
        vectors.compare("train_logits", classifier(features["neck.bn"]), **close)
        vectors.compare("train_logits_att", classifier(features["parts.x"]), **close)
        logits = graph.logits(features["neck.pooled"], labels)
        vectors.compare("train_log_probs", logits.log_softmax(1), **close)
        graph.factor.fill_(vectors.input("wG"))
        total, terms = model.loss(features, batch)
        for name, value in separate(model, features, labels).items():
            vectors.compare(f"train_loss_{name}", value, **close)
        vectors.compare("train_loss_tri", terms["triplet"], **close)
        vectors.compare("train_loss_P", terms["id"] + terms["triplet"], **close)
        vectors.compare("train_loss_G", terms["graph.nll"], **close)
        vectors.compare("train_loss_total", total, **close)
        total.backward()
        fine = {"rtol": 1e-7, "atol": 1e-10}
        for name, half in zip(("visible", "infrared"), maps.grad.chunk(2), strict=True):
            vectors.compare(f"g_map_{name}", half, **fine)
        for name in vectors.names("g_w_*"):
            key = name.removeprefix("g_w_")
            vectors.compare(name, same_shape(vectors, name, gradient_of(model, key)), **fine)
        for name in vectors.names("after_*"):
            vectors.compare(name, place_of(model, name.removeprefix("after_")), **close)
        assert {f"g_w_{key}" for key in keys if "running" not in key} - set(
            vectors.names("g_w_*")
        ) == {"g_w_bottleneck.bias", "g_w_wpa.bottleneck.bias"}


def gradient_of(model: Model, key: str) -> Tensor:
    """The gradient that belongs to a key of the program."""
    if found := re.match(r"attention_(\d+)\.", key):
        layer = model.losses["graph"].heads
        return (layer.weight if key.endswith("W") else layer.score).grad[int(found[1])]
    if key.startswith("out_att."):
        layer = model.losses["graph"].last
        return (layer.weight if key.endswith("W") else layer.score).grad[0]
    return place_of(model, key).grad


def optimizer_of(model: Model, optim: Optim) -> torch.optim.SGD:
    """As `reid run` makes it."""
    groups = []
    for role, part in model.parts():
        own = [p for p in part.parameters() if p.requires_grad]
        if own:
            groups.append({"params": own, "lr": optim.lr * optim.scale.get(role, 1.0)})
    made = torch.optim.SGD(
        groups,
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        weight_decay=optim.weight_decay,
    )
    for group in made.param_groups:
        group["base_lr"] = group["lr"]
    return made


def test_a_short_training_equals_the_programs():
    """With the optimizer and the schedule of `ddag:sysu`, weights after the first step and after
    all epochs, losses of every step, the graph's share of every epoch and the learning rates of
    every group and epoch equal the program's."""
    with oracle("ddag/train_step") as vectors:
        config = vectors.sidecar["config"]
        inner = len(vectors.arrays["w0_visible_module.c.weight"])
        model = model_of(vectors, Small(inner, config["C"])).train()
        load(model, vectors, "w0_")
        run = plan_of("sysu", f"optim.lr={vectors.input('base_lr').item()}").runfile
        optim, epochs = run.optim, run.train.epochs
        assert optim is not None
        table = vectors.arrays["lr_table"]
        rates = [optim.lr * rate_factor(optim, epoch, epochs) for epoch in range(len(table))]
        scales = [1.0, optim.scale["backbone"]] + [1.0] * (table.shape[1] - 2)
        vectors.compare("lr_table", [[r * s for s in scales] for r in rates], rtol=1e-12)

        optimizer = optimizer_of(model, optim)
        labels = vectors.input("labels_half").repeat(2)
        inputs = iter(vectors.input("inputs"))
        graph = model.losses["graph"]
        shares, history = [graph.factor.item()], []
        for epoch in range(config["epochs"]):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_factor(optim, epoch, epochs)
            sums = {"id": 0.0, "triplet": 0.0}
            for step in range(config["batches_per_epoch"]):
                batch = batch_of(next(inputs).flatten(0, 1), labels)
                features = model(batch.images)
                total, terms = model.loss(features, batch)
                alone = separate(model, features, labels)
                history.append(
                    [
                        alone["id"].item(),
                        terms["triplet"].item(),
                        alone["wp"].item(),
                        (terms["id"] + terms["triplet"]).item(),
                        terms["graph.nll"].item(),
                        total.item(),
                    ]
                )
                for name in sums:
                    sums[name] += terms[name].item() / config["batches_per_epoch"]
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                if epoch == step == 0:
                    compare_weights(vectors, model, "w1_", rtol=1e-9)
            model.after_epoch(sums)
            shares.append(graph.factor.item())
        compare_weights(vectors, model, "wT_", rtol=1e-6)
        vectors.compare("wG_per_epoch", shares, rtol=1e-9)
        vectors.compare("history", history, rtol=1e-7)

        found = [0.0]
        for losses in vectors.input("eq11_batch_losses"):
            graph.after_epoch({"id": losses.mean().item(), "triplet": 0.0})
            found.append(graph.factor.item())
        vectors.compare("eq11_wG", found, rtol=1e-12)


def compare_weights(vectors: Vectors, model: Model, prefix: str, rtol: float) -> None:
    for name in vectors.names(f"{prefix}*"):
        found = place_of(model, name.removeprefix(prefix))
        vectors.compare(name, same_shape(vectors, name, found), rtol=rtol, atol=1e-11)


def recipe(key: str, shape: list[int], seed: int) -> np.ndarray:
    """The tensor that the side-car describes for a key of the program."""
    z = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(shape)
    kind = key.rpartition(".")[2]
    if kind == "running_var":
        return 1 + 0.5 * np.abs(z)
    if kind == "running_mean":
        return 0.1 * z
    if len(shape) == 4:
        return z * np.sqrt(2 / np.prod(shape[1:])) * (0.1 if key.startswith("wpa.fc") else 1)
    if key == "wpa.gate":
        return 0.5 * z
    if key.endswith("bottleneck.bias"):
        return 0 * z
    if len(shape) == 2 and ".W" in key:
        return z * np.sqrt(1 / shape[0])
    if key.endswith(".a"):
        return 0.1 * z
    if len(shape) == 2:
        return z * np.sqrt(1 / shape[1])
    if kind == "weight":
        return (1 + 0.1 * z) * (0.25 if key.endswith("bn3.weight") else 1)
    return 0.1 * z


def summary(x: Tensor) -> list[float]:
    """Mean, deviation, largest magnitude, first and last element."""
    flat = x.detach().flatten()
    return [
        flat.mean().item(),
        flat.std(correction=0).item(),
        flat.abs().max().item(),
        flat[0].item(),
        flat[-1].item(),
    ]


def published_keys() -> list[dict]:
    return json.loads((folder() / "ddag" / "state_dict_keys.json").read_text())["tensors"]


def test_the_whole_network_equals_the_programs():
    """A ResNet-50 of two streams in float64, filled key by key as a published checkpoint would be:
    stems, trunk and both features of pictures of one modality, then losses and running statistics
    of a mixed batch."""
    with oracle("ddag/two_stream_forward") as vectors:
        config, seed = vectors.sidecar["config"], vectors.sidecar["seed"]
        sizes = {395: config["n_class"], 512: config["low_dim"], 1024: 2 * config["low_dim"]}
        graph = {2048: config["low_dim"] * config["heads"], 790: 2 * config["n_class"]}
        state = {}
        for tensor in published_keys():
            key, shape = tensor["key"], tensor["shape"]
            if not tensor["used_in_forward"] or key.endswith("num_batches_tracked"):
                continue
            if (head := re.match(r"attention_(\d+)\.", key)) and int(head[1]) >= config["heads"]:
                continue
            if key == "wpa.gate":
                shape = [config["parts"]]
            elif key.startswith("out_att."):
                shape = [{**sizes, **graph}.get(size, size) for size in shape]
            elif key.startswith(("classifier.", "attention_")):
                shape = [sizes.get(size, size) for size in shape]
            state[key] = torch.from_numpy(np.asarray(recipe(key, shape, seed)))
        for name in vectors.names("p_*"):
            vectors.compare(name, summary(state[name.removeprefix("p_")]), rtol=1e-9)

        plan = plan_for(vectors)
        wanted = {**plan.wanted, "backbone": frozenset({"stem", "layer4"})}
        model = build_model(attrs.evolve(plan, wanted=wanted), 0).double()
        fill(model, state)
        random = np.random.RandomState(seed)
        count, size = config["n_per_modality"], (config["H"], config["W"])
        visible = random.standard_normal((count, 3, *size))
        infrared = random.standard_normal((count, 1, *size)).repeat(3, 1)
        pixels = torch.from_numpy(np.concatenate([visible, infrared]))
        sums = [visible.sum(), visible.std(), infrared.sum(), infrared.std()]
        sums += [visible.flat[0], infrared.flat[0]]
        vectors.compare("input_checksum", sums, rtol=1e-9)
        labels = vectors.input("labels_half").repeat(2)
        batch = batch_of(pixels, labels)
        fine = {"rtol": 1e-6, "atol": 1e-9}
        model.eval()
        for number, kind in enumerate(("visible", "infrared")):
            with torch.no_grad():
                found = model(batch.images[batch.images.modality == number])
            vectors.compare(f"eval_{kind}_stem_stat", summary(found["backbone.stem"]), **fine)
            trunk = found["backbone.layer4"]
            vectors.compare(f"eval_{kind}_trunk_shape", trunk.shape)
            vectors.compare(f"eval_{kind}_trunk_stat", summary(trunk), **fine)
            vectors.compare(f"eval_{kind}_x_pool", found["neck.pooled"], **fine)
            vectors.compare(f"eval_{kind}_feat_l2", F.normalize(found["neck.bn"]), **fine)
            vectors.compare(f"eval_{kind}_feat_att_l2", F.normalize(found["parts.x"]), **fine)
        model.train()
        with torch.no_grad():
            features = model(batch.images)
            classifier, graph = model.losses["id"].classifier, model.losses["graph"]
            graph.factor.fill_(config["wG"])
            total, terms = model.loss(features, batch)
            logits = graph.logits(features["neck.pooled"], labels)
            alone = separate(model, features, labels)
        vectors.compare("train_x_pool", features["neck.pooled"], **fine)
        vectors.compare("train_logits", classifier(features["neck.bn"]), **fine)
        vectors.compare("train_logits_att", classifier(features["parts.x"]), **fine)
        vectors.compare("train_log_probs", logits.log_softmax(1), **fine)
        expected = {
            **alone,
            "tri": terms["triplet"],
            "P": terms["id"] + terms["triplet"],
            "G": terms["graph.nll"],
            "total": total,
        }
        for name, value in expected.items():
            vectors.compare(f"train_loss_{name}", value, **fine)
        for name in vectors.names("after_*"):
            found = place_of(model, name.removeprefix("after_"))[:64]
            vectors.compare(name, found, **fine)


def test_every_key_of_the_program_has_its_place():
    """Of the 991 tensors that the program saves those that it uses are converted, into exactly the
    tensors of `ddag:sysu` with 395 identities, and the network has as many parameters."""
    if not folder().is_dir():
        pytest.skip(f"no oracle vectors at {folder()}")
    tensors = published_keys()
    for tensor in tensors:
        assert (own_name(tensor["key"]) is not None) is tensor["used_in_forward"], tensor
    state = {one["key"]: torch.empty(one["shape"], device="meta") for one in tensors}
    found = {name: value.shape for name, value in sections(state).items()}
    model = build_model(plan_of("sysu"), 0)
    built = {
        f"{role}.{key}": value.shape
        for role, section in model.sections().items()
        for key, value in section.items()
    }
    assert built.pop("loss.graph.factor") == ()
    assert found == built
    said = json.loads((folder() / "ddag" / "state_dict_keys.json").read_text())
    assert sum(parameter.numel() for parameter in model.parameters()) == said["used_parameters"]
