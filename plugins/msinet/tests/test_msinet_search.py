"""The search: its split, its steps, what it leaves behind, and how it goes on."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plugins.msinet.tests.msinet_weights import fill, own_role, weights
from reid_msinet import search
from reid_msinet.categories import split_identities
from reid_msinet.genotypes import read_genotype
from reid_msinet.network import MSISuperNet
from reid_msinet.plugin import reid_procedures
from reid_msinet.search import alternate, split_pictures, split_rows
from reid_msinet.settings_search import Search
from reidcore.api import BatchShape, Given, WiringError
from reidcore.cli.main import main
from reidcore.errors import RunFileError, UsageError
from reidcore.modules import Batch, Images, Rows
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan
from tests.oracles import Vectors, oracle

SAMPLE = reid_procedures()[0].sample


def rows_of(pids: np.ndarray, identities: int) -> Rows:
    """Rows whose path is their number."""
    count = len(pids)
    return Rows(
        [str(i) for i in range(count)],
        np.asarray(pids),
        np.zeros(count, np.int64),
        np.zeros(count),
        np.zeros(count, np.int64),
        [str(i) for i in range(identities)],
        [str(i) for i in range(count)],
    )


@pytest.mark.oracle
def test_the_split_equals_the_authors():
    """Which pictures train and validate, with which labels, for numbers of identities that five
    divides and that it does not. The authors list shared identities in another order."""
    with oracle("msinet/g_extras") as vectors:
        for name in vectors.names("split/*/data"):
            base = name.removesuffix("/data")
            data = vectors.input(name).numpy()
            identities = len(np.unique(data[:, 1]))
            split = split_identities(identities, 0.2, 0.4)
            vectors.compare(f"{base}/num_classes", np.array([split.train, split.validate]))
            for part, rows in zip(
                ("train", "valid"), split_rows(rows_of(data[:, 1], identities), split), strict=True
            ):
                picture = np.array([int(path) for path in rows.paths])
                found = np.stack([data[picture, 0], rows.pid, data[picture, 2]], 1)
                expected = vectors.arrays[f"{base}/{part}"]
                order = [np.lexsort(one.T[::-1]) for one in (found, expected)]
                places = np.empty(len(found), int)
                places[order[1]] = order[0]
                vectors.compare(f"{base}/{part}", found[places])
        elsewhere = "compared by the core's own tests"
        for pattern in ("loss/*", "lr/*", "metric/*"):
            vectors.later(pattern, elsewhere)


@pytest.mark.parametrize(
    ("identities", "train_only", "overlap", "expected"),
    [
        (1041, 0.2, 0.4, (208, 416, 417)),
        (9, 0.2, 0.4, (1, 2, 6)),
        (30, 0.0, 1.0, (0, 30, 0)),
        (30, 0.25, 0.5, (7, 14, 9)),
        (150, 0.0, 0.33, (0, 49, 101)),
    ],
)
def test_shares_of_identities(identities, train_only, overlap, expected):
    """Rounded down, with few shares to the multiple of their denominator; the rest validates."""
    assert attrs.astuple(split_identities(identities, train_only, overlap)) == expected


def test_shared_identities_give_half_of_their_pictures():
    """The first half, rounded down, trains; an identity with one picture only validates."""
    pids = np.array([0, 1, 2, 1, 0, 1, 3, 2])
    trains = split_pictures(pids, split_identities(4, 0.25, 0.5))
    assert trains.tolist() == [True, True, True, False, True, False, False, False]


@pytest.mark.parametrize("halves", ["first", "interleaved", "random"])
def test_halves_are_chosen_as_they_are_named(halves):
    """Of pictures that are listed by camera the first half has one of two cameras, the others both;
    always half of each shared identity, and a random one by the seed alone."""
    split = split_identities(10, 0.2, 0.6)
    pids = np.repeat(np.arange(10), 9)
    camera = np.tile(np.arange(9) >= 4, 10)
    trains = split_pictures(pids, split, halves, seed=3)
    assert trains[pids < 2].all() and not trains[pids >= 8].any()
    shared = (pids >= 2) & (pids < 8)
    assert np.bincount(pids[shared & trains])[2:].tolist() == [4] * 6
    cameras = {tuple(np.unique(camera[(pids == pid) & trains])) for pid in range(2, 8)}
    assert ((False,) in cameras) == (halves == "first")
    again = [split_pictures(pids, split, halves, seed) for seed in (3, 4)]
    assert np.array_equal(trains, again[0])
    assert np.array_equal(trains, again[1]) == (halves != "random")
    if halves == "interleaved":
        assert (np.diff(np.flatnonzero(trains[pids == 2])) == 2).all()


@pytest.mark.parametrize("halves", ["interleaved", "random"])
def test_a_search_takes_the_halves_that_are_set(halves, monkeypatch):
    """Which rows it alternates between, with the seed of its run."""
    seen = {}
    monkeypatch.setattr(search, "alternate", lambda config, run, *sides: seen.update(sides=sides))
    rows = rows_of(np.repeat(np.arange(10), 6), 10)
    backbone = SimpleNamespace(network=SimpleNamespace(alpha=1))
    run = SimpleNamespace(
        model=SimpleNamespace(backbone=backbone), table={"optim": None}, train=rows, seed=7
    )
    config = Search(feature="pool.vector", halves=halves)
    search.search(config, run)
    expected = split_rows(rows, config.categories(10), halves, 7)
    assert [side.paths for side in seen["sides"]] == [side.paths for side in expected]
    assert expected[0].paths != split_rows(rows, config.categories(10))[0].paths


class Steps:
    """A run of stored batches: what the search asks of `Run`, as `TrainingRun` answers it, with
    all numbers in float64. After each iteration `seen` notes what the file has of it."""

    def __init__(self, vectors: Vectors, variant: str, network: nn.Module):
        self.vectors, self.variant, self.network = vectors, variant, network
        self.model = Vector(network)
        self.device = torch.device("cpu")
        classes = len(vectors.arrays["memory_train_init"])
        self.train = rows_of(np.arange(classes), classes)
        self.table = {"optim": {}}
        code = vectors.sidecar["semantics"]["code"]
        rates = re.findall(r"([\d.]+)\*([\d.]+) in epoch \d+", code)
        self.rates = [float(base) * float(factor) for base, factor in rates]
        self.steps = len(vectors.names("train/x_*")) // len(self.rates)
        self.iteration = 0
        self.losses: list[float] = []

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        side = "val" if stream else "train"
        for number in range(self.steps * epoch, self.steps * (epoch + 1)):
            x = self.vectors.input(f"{side}/x_{number}").double()
            none = torch.zeros(len(x), dtype=torch.int64)
            yield Batch(Images(x, none, none), self.vectors.input(f"{side}/y_{number}"))

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[dict[str, Tensor], Batch]]:
        """A vector, whose length is all that the search asks for here."""
        x = torch.zeros(1, self.vectors.arrays["memory_train_init"].shape[1])
        none = torch.zeros(1, dtype=torch.int64)
        yield {"pool.vector": x}, Batch(Images(x, none, none), none)

    def optimizer(self, parameters: Any = None) -> torch.optim.Optimizer:
        assert parameters is None
        momentum, decay = self.vectors.stated(
            r"in epoch \d+; momentum ([\d.]+), weight decay ([\de.-]+)\."
        )
        self.sgd = torch.optim.SGD(
            self.network.parameters(), lr=self.rates[0], momentum=momentum, weight_decay=decay
        )
        return self.sgd

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def backward(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        loss.backward()

    def epochs(self, **state: Any) -> Iterator[int]:
        self.state = state
        if self.variant == "paper":
            # Exactly as stored: unit length to float64's precision is another number.
            for memory, name in zip(state["losses"], ("train", "val"), strict=True):
                memory.memory.copy_(self.vectors.input(f"memory_{name}_init"))
        for epoch, rate in enumerate(self.rates):
            self.sgd.param_groups[0]["lr"] = rate
            yield epoch

    def log(self, **numbers: Tensor) -> None:
        """One iteration is over."""
        order = ("loss", "validation") if self.variant == "paper" else ("validation", "loss")
        self.losses += [numbers[name].item() for name in order if name in numbers]
        close = {"rtol": 1e-5} if self.iteration < 2 else {"rtol": 1e-3}
        alpha = close | {"atol": 1e-6 if self.iteration < 2 else 2e-5}
        network, memories = self.network, self.state["losses"]
        parameters = {key: value for key, value in network.named_parameters()}
        norms = [
            parameters[own_role(role)].detach().norm()
            if own_role(role) in parameters
            else self.vectors.input(f"w/{role}").double().norm()  # gets no loss, so it stays
            for role in self.vectors.sidecar["parameter_roles"]
        ]
        for name, value, tolerance in (
            ("alpha", network.alpha, alpha),
            ("param_norms", torch.stack(norms), close),
            ("stem_gamma", network.stem.norm.weight, close),
            ("cell6_pw", network.cell6.long.post[2].pointwise.weight, close | {"atol": 1e-7}),
            ("mem_train", memories[0].memory, close | {"atol": 1e-6}),
            ("mem_val", memories[1].memory, close | {"atol": 1e-6}),
            ("stem_bn_mean", network.stem.norm.running_mean, close),
        ):
            array = f"{self.variant}/{name}_{self.iteration}"
            self.vectors.compare(array, value, **tolerance)
        self.iteration += 1

    def say(self, text: str) -> None: ...

    def write(self, name: str, data: str) -> None: ...


class Vector(nn.Module):
    """A model that is its backbone and the mean of its last map."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.backbone = SimpleNamespace(network=network)

    def forward(self, images: Images) -> dict[str, Tensor]:
        network = self.backbone.network
        return {"pool.vector": network(images.pixels)["cell6"].mean((2, 3))}


@pytest.mark.oracle
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_steps_equal_the_authors(variant):
    """Epochs of some iterations in float64: alpha, weights, both memories, running statistics
    and losses, in the paper's order from given memories and in the code's order from zeros."""
    with oracle("msinet/h_search_steps") as vectors:
        network = MSISuperNet(channels=tuple(vectors.sidecar["net_channels"]))
        state = weights(vectors, "w/")
        unused = {"head.norm", "classifier"}
        fill(network, {k: v for k, v in state.items() if k.rpartition(".")[0] not in unused})
        network.train().alpha.copy_(vectors.input("alpha_init"))
        rate, *betas, decay = vectors.stated(
            r"Adam lr ([\d.]+), betas \(([\d.]+),\s*([\d.]+)\), weight decay ([\de.-]+),"
        )
        config = Search(
            feature="pool.vector",
            order=variant,
            memory_init="zeros",
            alpha_lr=rate,
            alpha_betas=tuple(betas),
            alpha_weight_decay=decay,
        )
        run = Steps(vectors, variant, network)
        classes = [len(vectors.arrays[f"memory_{part}_init"]) for part in ("train", "val")]
        alternate(config, run, *(rows_of(np.arange(count), count) for count in classes))
        vectors.compare(f"{variant}/losses", np.array(run.losses), rtol=1e-3)
        other = "code" if variant == "paper" else "paper"
        vectors.later(f"{other}/*", "the other order")
        vectors.inputs_only("memory_train_init", "memory_val_init")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The demo's pictures are drawn once for all of these tests."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run_sample(folder: Path, *sets: str, reporter: Any = None) -> Path:
    plan = make_plan(parse_runfile(SAMPLE, Path("sample.toml"), sets), Plugins(), make_data=True)
    folder.mkdir(exist_ok=True)
    run_training(plan, Plugins(), TrainingOptions(folder, sets), reporter or Silent())
    return folder


class Heard(Silent):
    """Keeps what is said, and breaks off after an epoch."""

    def __init__(self, last: int = 0):
        self.said: list[str] = []
        self.last = last

    def say(self, text: str) -> None:
        self.said.append(text)

    def epoch_ended(self, means) -> None:
        if means["epoch"] == self.last:
            raise KeyboardInterrupt


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "alpha.csv").read_text().splitlines()))


def test_a_search_leaves_its_genotype(tmp_path):
    """A genotype file with the largest weights of the table's last epoch, which is shown with the
    entropies after each epoch; the next run names the file."""
    heard = Heard()
    folder = run_sample(tmp_path / "search", "train.epochs=2", "optim.lr=0.01", reporter=heard)
    lines = table(folder)
    assert [(line["epoch"], line["slot"]) for line in lines] == [
        (str(epoch), str(slot)) for epoch in (1, 2) for slot in range(1, 13)
    ]
    for line in lines:
        found = np.array([float(line[letter]) for letter in "NGAE"])
        assert found.sum() == pytest.approx(1, abs=1e-4)
        entropy = -(found * np.log(found)).sum()
        assert float(line["entropy"]) == pytest.approx(entropy, abs=1e-4)
        assert entropy < math.log(4) + 1e-6
    genotype = json.loads((folder / "genotype.json").read_text())["genotype"]
    assert genotype == "".join(max("NGAE", key=lambda x: float(line[x])) for line in lines[12:])
    shown = [text for text in heard.said if text.startswith("genotype ")]
    assert len(shown) == 2 and shown[1].startswith(f"genotype {genotype}  entropy 1.3")

    file = folder / "genotype.json"
    text = SAMPLE.replace("msinet.supernet", "msinet.net").partition("[train]")[0]
    text += (
        '[[loss]]\nname = "triplet"\nuse = "core.triplet"\nfeature = "pool.vector"\n'
        "[train]\nepochs = 1\n[optim]\nlr = 0.001\n"
    )
    (tmp_path / "next.toml").write_text(text)
    out = str(tmp_path / "next")
    where = ["--set", f"backbone.genotype={file}"]
    assert main(["run", str(tmp_path / "next.toml"), "--out", out, *where]) == 0
    assert main(["eval", out]) == 0


def test_another_genotype_is_refused(tmp_path, capsys):
    """Exchange and nothing have the same weights: a genotype file that has changed since is found
    out, and so are weights of another network to start from."""
    file = tmp_path / "genotype.json"
    file.write_text('{"genotype": "NNNNNNNNNNNN"}')
    text = SAMPLE.replace("msinet.supernet", "msinet.net").partition("[train]")[0]
    text = text.replace("[backbone]", f'[backbone]\ngenotype = "{file}"')
    text += "[train]\nepochs = 0\n"
    (tmp_path / "net.toml").write_text(text)
    out = tmp_path / "net"
    assert main(["run", str(tmp_path / "net.toml"), "--out", str(out)]) == 0
    file.write_text('{"genotype": "NNNNNNNNNNNE"}')
    capsys.readouterr()
    assert main(["eval", str(out)]) == 4
    error = capsys.readouterr().err
    assert 'set its genotype to "NNNNNNNNNNNN"' in error and "Traceback" not in error
    start = ["--set", f"backbone.weights={out / 'weights.safetensors'}"]
    assert main(["run", str(tmp_path / "net.toml"), "--out", str(tmp_path / "b"), *start]) == 4
    assert "these weights are of the genotype NNNNNNNNNNNN" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 10**5, '{"genotype": ' + "1" * 5000 + "}", '{"genotype": "NNNN"}', "[1]"],
    ids=["empty", "cut", "deep", "huge", "short", "list"],
)
def test_a_damaged_genotype_is_told(tmp_path, text):
    file = tmp_path / "genotype.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"genotype\.json (cannot be read|has no 'genotype')"):
        read_genotype(file)


@pytest.mark.parametrize(
    "sets",
    [
        # The conformance kit resumes such a search, too.
        pytest.param((), id="paper", marks=pytest.mark.slow),
        pytest.param(("procedure.order=code", "procedure.memory_init=zeros"), id="code"),
        pytest.param(
            ("procedure.loss=softmax", "procedure.overlap=1", "procedure.train_only=0"),
            id="softmax",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_broken_off_and_resumed_it_ends_with_the_same_bits(tmp_path, sets):
    """Weights, genotype and the whole table of alpha."""
    changes = ("train.epochs=3", "optim.lr=0.01", *sets)
    whole = run_sample(tmp_path / "whole", *changes)
    with pytest.raises(KeyboardInterrupt):
        run_sample(tmp_path / "broken", *changes, reporter=Heard(last=2))
    assert not (tmp_path / "broken" / "genotype.json").exists()
    broken = run_sample(tmp_path / "broken", *changes)
    for name in ("weights.safetensors", "genotype.json", "alpha.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def given(identities: int = 50, ids: int | None = 16, losses: tuple[str, ...] = ()) -> Given:
    return Given((64, 32), identities=identities, batch=BatchShape(64, ids, 4), losses=losses)


@pytest.mark.parametrize(
    ("where", "settings", "field", "words"),
    [
        (given(losses=("id",)), {}, "", r"does not look at \[\[loss\]\] \(id\)"),
        (given(), {"overlap": 0.9}, "overlap", "more than all"),
        (given(), {"loss": "softmax"}, "loss", "overlap = 1 and train_only = 0"),
        (given(20), {}, "overlap", "leaves 12 of 20 identities to train; a batch needs 16"),
        (given(), {"overlap": 0.1, "train_only": 0.9}, "overlap", "5 of 50 identities to validate"),
    ],
)
def test_it_refuses_what_it_cannot_search(where, settings, field, words):
    with pytest.raises(WiringError, match=words) as caught:
        Search(feature="pool.vector", **settings).check(where)
    assert caught.value.field == field


def test_it_needs_a_supernet_and_clips_nothing_in_the_codes_order(tmp_path):
    """Both are said before anything is trained."""
    with pytest.raises(UsageError, match=r"needs the backbone msinet\.supernet"):
        run_sample(tmp_path / "a", "backbone.use=msinet.net")
    with pytest.raises(UsageError, match=r"remove optim\.clip_norm"):
        run_sample(tmp_path / "b", "procedure.order=code", "optim.clip_norm=1.0")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("GGG", "expected 12 letters out of N, G, A, E, a name"),
        ("GGGGGGGGGGGX", "random:SEED"),
        ("none.json", "which is not at"),
    ],
)
def test_a_wrong_genotype_is_told(value, words):
    text = SAMPLE.replace("msinet.supernet", "msinet.net").partition("[train]")[0]
    text += "[train]\nepochs = 0\n"
    run = parse_runfile(text, Path("x.toml"), [f"backbone.genotype={value}"])
    with pytest.raises(RunFileError, match=words):
        make_plan(run, Plugins(), allow_missing=True)
