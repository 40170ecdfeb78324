"""Operations, cells and the network: their numbers, sizes, settings and weights."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.msinet.tests.msinet_weights import fill, own_role, weights
from reid_msinet.genotypes import OPERATIONS, REGISTERED, random_genotype
from reid_msinet.network import Cell, ConvNorm, MSINet, MSISuperNet, summed
from reid_msinet.operations import CrossAttention, MixedOperation, make_operation
from reid_msinet.sizes import STAGES, stage_shapes
from tests.oracles import Vectors, oracle

TABLE_1 = REGISTERED["msmt17"]
NAMES = {"none": "N", "channel_gate": "G", "cross_attention": "A", "exchange": "E"}
"""The side-cars' names of the operations."""
STORED = {"rtol": 1e-5, "atol": 1e-6}
"""For maps that are stored as float32."""
SMALL = (8, 32, 32, 64)


def size(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def hooked(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """What modules give from now on, by the names they are given here."""
    seen: dict[str, Tensor] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output) -> None:
            # ReLU works in place, so what a module gave is copied at once.
            copies = (
                [one.clone() for one in output] if isinstance(output, tuple) else output.clone()
            )
            seen[name] = copies

        return hook

    for name, module in modules.items():
        module.register_forward_hook(note(name))
    return seen


@pytest.mark.oracle
def test_operations_equal_the_authors():
    """Outputs and all gradients of the four operations, and of attention on eight times as large
    maps, whose softmax is nearly one-hot."""
    close = {"rtol": 1e-9, "atol": 1e-10}
    with oracle("msinet/a_ops") as vectors:
        cots = [vectors.input(name).double() for name in ("cot1", "cot2")]
        for name in (*NAMES, "cross_attention_large"):
            large = name.endswith("_large")
            factor = vectors.stated(r"inputs (\d+)\*x1")[0] if large else 1
            maps = [(vectors.input(one).double() * factor).requires_grad_() for one in ("x1", "x2")]
            letter = NAMES[name.removesuffix("_large")]
            operation = make_operation(letter, maps[0].shape[1])
            fill(operation, weights(vectors, f"{name}/", lambda role: role.partition(".")[2]))
            outputs = operation(*maps)
            total = sum((out * cot).sum() for out, cot in zip(outputs, cots, strict=True))
            total.backward()
            for number in (0, 1):
                vectors.compare(f"{name}/out{number + 1}", outputs[number], **close)
                vectors.compare(f"{name}/grad_x{number + 1}", maps[number].grad, **close)
            for key, parameter in operation.named_parameters():
                vectors.compare(f"{name}/grad_{key}", parameter.grad, **close)


@pytest.mark.parametrize(("channels", "hidden", "expected"), [(16, 1, 1), (16, 4, 4), (96, 4, 6)])
def test_narrow_gates_have_a_least_width(channels, hidden, expected):
    assert make_operation("G", channels, hidden=hidden).fc1.out_channels == expected


def test_attention_is_what_its_equation_says():
    """Every channel plus gamma times its own map's channels, weighted by a softmax over how little
    it correlates with the other map's; upside down without `invert`. gamma = 0 does nothing."""
    draw = torch.Generator().manual_seed(0)
    one, two = torch.rand(2, 2, 3, 2, 2, generator=draw, dtype=torch.float64)
    operation = CrossAttention().double()
    assert all(map(torch.equal, operation(one, two), (one, two)))
    for invert in (True, False):
        operation = CrossAttention(invert).double()
        operation.gamma.data.fill_(0.7)
        got = operation(one, two)
        for x, other, out in ((one, two, got[0]), (two, one, got[1])):
            for b, i in itertools.product(range(2), range(3)):
                scores = torch.stack([(x[b, i] * other[b, j]).sum() for j in range(3)])
                weights = torch.exp(-scores if invert else scores)
                mixed = sum(w * x[b, j] for j, w in enumerate(weights / weights.sum()))
                torch.testing.assert_close(out[b, i], x[b, i] + 0.7 * mixed)


def cell_of(vectors: Vectors, name: str) -> Cell:
    shape = vectors.sidecar["cells"][name]
    inner = shape["mid_channels"]
    slots = tuple(make_operation(NAMES[shape[slot]], inner) for slot in ("slot1", "slot2"))
    return Cell(shape["in_channels"], shape["out_channels"], inner, slots)


@pytest.mark.oracle
def test_cells_equal_the_authors():
    """Twelve intermediate maps, output and input gradient of a cell of each operation and of two
    mixed ones, and what training does to its norms."""
    close = {"rtol": 1e-8, "atol": 1e-9}
    with oracle("msinet/b_cells") as vectors:
        for name in vectors.sidecar["cells"]:
            cell = fill(cell_of(vectors, name), weights(vectors, f"{name}/w/")).eval()
            seen = hooked(
                {
                    f"{side}_{place}": getattr(getattr(cell, side), part)
                    for side in ("short", "long")
                    for place, part in (
                        ("after_reduce", "reduce"),
                        ("before_slot1", "pre"),
                        ("before_slot2", "post"),
                    )
                }
                | {"slot1": cell.slot1, "slot2": cell.slot2}
            )
            x = vectors.input(f"{name}/x").double().requires_grad_()
            out = cell(x)
            for place, found in seen.items():
                if place.startswith("slot"):
                    for side, one in zip(("short", "long"), found, strict=True):
                        vectors.compare(f"{name}/eval/{side}_after_{place}", one, **STORED)
                        if place == "slot2":
                            expanded = getattr(cell, side).expand(one)
                            array = f"{name}/eval/{side}_after_expand"
                            vectors.compare(array, expanded, **STORED)
                else:
                    vectors.compare(f"{name}/eval/{place}", found, **STORED)
            vectors.compare(f"{name}/eval/out", out, **close)
            (out * vectors.input(f"{name}/eval/cot")).sum().backward()
            vectors.compare(f"{name}/eval/grad_x", x.grad, **close)
            vectors.compare(f"{name}/train/out", cell.train()(x), **close)
            norm = cell.long.expand.norm
            for key, value in (("mean", norm.running_mean), ("var", norm.running_var)):
                vectors.compare(f"{name}/train/long_expand_bn_{key}_after", value, **close)


@pytest.mark.oracle
def test_mixed_operations_equal_the_authors():
    """Slot inputs and outputs, the gradients of alpha and of the input of two mixed cells, and a
    supernet of reduced width."""
    close = {"rtol": 1e-8, "atol": 1e-10}
    with oracle("msinet/f_supernet") as vectors:
        for name, shape in vectors.sidecar["cells"].items():
            inner = shape["mid_channels (code: in//4)"]
            slots = MixedOperation(inner), MixedOperation(inner)
            cell = Cell(shape["in_channels"], shape["out_channels"], inner, slots)
            fill(cell, weights(vectors, f"{name}/w/")).eval()
            seen = hooked({"slot1_out": cell.slot1, "slot2_out": cell.slot2})
            entered = hooked({side: getattr(cell, side).pre for side in ("short", "long")})
            x = vectors.input(f"{name}/x").double().requires_grad_()
            alpha = vectors.input(f"{name}/alpha").double().requires_grad_()
            out = cell(x, alpha.softmax(1))
            for place, (short, long) in seen.items():
                vectors.compare(f"{name}/eval/{place}_short", short, **close)
                vectors.compare(f"{name}/eval/{place}_long", long, **close)
            for side, found in entered.items():
                vectors.compare(f"{name}/eval/slot1_in_{side}", found, **close)
            vectors.compare(f"{name}/eval/out", out, **close)
            (out * vectors.input(f"{name}/eval/cot")).sum().backward()
            vectors.compare(f"{name}/eval/grad_alpha", alpha.grad, **close)
            vectors.compare(f"{name}/eval/grad_x", x.grad, **close)

        network = MSISuperNet(channels=tuple(vectors.sidecar["net_channels"]))
        state = weights(vectors, "net/w/")
        # The authors' network ends with a norm and a classifier that get no loss in the search.
        unused = {"head.norm", "classifier"}
        fill(network, {k: v for k, v in state.items() if k.rpartition(".")[0] not in unused})
        network.eval().alpha.copy_(vectors.input("net/alpha")).requires_grad_()
        outputs = network(vectors.input("net/x").double())
        for stage in STAGES[1:]:
            vectors.compare(f"net/eval/{stage}", outputs[stage], **STORED)
        feature = outputs["cell6"].mean((2, 3))
        vectors.compare("net/eval/feature", feature, **close)
        (feature * vectors.input("net/eval/cot")).sum().backward()
        vectors.compare("net/eval/grad_alpha", network.alpha.grad, rtol=1e-8, atol=1e-8)
        assert list(network.genotype()) == vectors.sidecar["net_genotype_argmax"]


@pytest.mark.parametrize(
    ("genotype", "count"),
    [
        (TABLE_1, 1_949_539),
        ("N" * 12, 1_943_104),
        ("E" * 12, 1_943_104),
        ("G" * 12, 1_959_176),
        ("A" * 12, 1_943_116),
    ],
)
def test_sizes_are_the_published(genotype, count):
    """Parameters without neck, which has 378,496 more."""
    assert size(MSINet(genotype)) == count


def test_other_sizes_are_the_published():
    """The interactions of table 1 alone, one expanding convolution for both branches, the
    supernet, to which the authors add a norm of 512 channels, and both widths of its cells."""
    assert size(MSINet(TABLE_1)) - size(MSINet("N" * 12)) == 6_435
    assert size(MSINet(TABLE_1, shared_expand=True)) == 2_085_859 - 378_496
    assert size(MSISuperNet()) + 2 * 512 == 1_687_590
    wide = MSISuperNet(width="out")
    assert [wide.get_submodule(f"cell{k}.short.reduce.conv").out_channels for k in range(1, 7)] == [
        64,
        64,
        96,
        96,
        128,
        128,
    ]


@pytest.mark.parametrize("image", [(64, 32), (80, 48), (97, 61)])
def test_shapes_are_as_declared(image):
    network = MSINet(TABLE_1, channels=SMALL).eval()
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, *image))
    found = {stage: tuple(value.shape[1:]) for stage, value in outputs.items()}
    assert found == stage_shapes(SMALL, image)


def test_norms_are_part_of_convolutions_at_inference():
    """In eval mode the scale of a norm goes into the weights: the numbers stay, also under
    gradient, and training does not see it."""
    torch.manual_seed(0)
    layer = ConvNorm(3, 5, 3).double()
    with torch.no_grad():
        layer.norm.running_mean.uniform_(-1, 1)
        layer.norm.running_var.uniform_(0.5, 2)
        layer.norm.weight.uniform_(-1, 1)
        layer.norm.bias.uniform_(-1, 1)
    x = torch.rand(2, 3, 6, 4, dtype=torch.float64)
    layer.eval()
    torch.testing.assert_close(layer(x), layer.norm(layer.conv(x)).relu())
    summand = torch.rand(2, 5, 6, 4, dtype=torch.float64)
    other = ConvNorm(4, 5, relu=False).double().eval()
    other.norm.running_mean.uniform_(-1, 1)
    layer.relu, layer.conv.padding, y = False, (0, 0), torch.rand(2, 4, 6, 4, dtype=torch.float64)
    layer.conv.weight.data = layer.conv.weight.data[:, :, :1, :1]
    terms = (layer, x), (other, y), (nn.Identity(), summand)
    torch.testing.assert_close(summed(*terms), layer(x) + other(y) + summand)
    layer.train(), other.train()
    torch.testing.assert_close(summed(*terms), layer(x) + other(y) + summand)
    layer = ConvNorm(3, 5, 3).double()
    expected = F.batch_norm(
        layer.conv(x), None, None, layer.norm.weight, layer.norm.bias, training=True
    )
    torch.testing.assert_close(layer(x), expected.relu())


@pytest.mark.parametrize("fusion", ["sum", "minus", "multiply"])
@pytest.mark.parametrize("shared", [False, True])
def test_branches_are_joined_as_asked(fusion, shared):
    """Joined behind each branch's own expansion, or before a shared one."""
    torch.manual_seed(0)
    slots = make_operation("N", 4), make_operation("E", 4)
    cell = Cell(8, 16, 4, slots, 2, fusion, shared).double().eval()
    x = torch.rand(2, 8, 5, 3, dtype=torch.float64)
    short = cell.short.post(cell.short.pre(cell.short.reduce(x)))
    long = cell.long.post(cell.long.pre(cell.long.reduce(x)))
    short, long = long, short  # the second slot exchanges
    join = {"sum": torch.add, "minus": torch.sub, "multiply": torch.mul}[fusion]
    joined = (
        cell.expand(join(short, long))
        if shared
        else join(cell.short.expand(short), cell.long.expand(long))
    )
    torch.testing.assert_close(cell(x), (joined + cell.shortcut(x)).relu())
    assert len(cell.long.pre) == len(cell.long.post) == 2


def test_a_decided_supernet_is_the_network():
    """With all weight on one operation in each slot, and the cells' final width, a supernet gives
    what the network of that genotype gives."""
    torch.manual_seed(0)
    genotype = "GGEGAGGNGAEA"
    network = MSINet(genotype, channels=SMALL).eval()
    supernet = MSISuperNet(channels=SMALL, width="out").eval()
    for cell in range(1, 7):
        for slot in (1, 2):
            letter = genotype[2 * cell + slot - 3]
            mixed = supernet.get_submodule(f"cell{cell}.slot{slot}")
            getattr(network, f"cell{cell}").register_module(f"slot{slot}", mixed.candidates[letter])
            mixed.candidates[letter].apply(
                lambda part: (
                    part.gamma.data.fill_(0.5) if isinstance(part, CrossAttention) else None
                )
            )
    own = {k: v for k, v in network.state_dict().items() if k in supernet.state_dict()}
    supernet.load_state_dict(own, strict=False)
    supernet.alpha.fill_(-1e4)
    for slot, letter in enumerate(genotype):
        supernet.alpha[slot, list(OPERATIONS).index(letter)] = 0
    assert supernet.genotype() == genotype
    x = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x)["cell6"], network(x)["cell6"])


def test_random_genotypes_follow_from_their_seed():
    drawn = [random_genotype(seed) for seed in range(50)]
    assert drawn == [random_genotype(seed) for seed in range(50)]
    assert len(set(drawn)) == 50
    assert set("".join(drawn)) == set(OPERATIONS)


@pytest.mark.oracle
def test_published_keys_have_our_names():
    """Every key of the authors' network becomes the role that the side-car gives it, or belongs to
    what stands behind the cells."""
    with oracle("msinet/c_network") as vectors:
        network = MSINet("".join(vectors.sidecar["genotype"]))
        found = {}
        for array, words in vectors.sidecar["arrays"].items():
            if array.startswith("w/"):
                found[own_role(words["role"])] = network.own_name(words["authors_state_dict_key"])
        for role, name in found.items():
            assert name == (None if re.match(r"(global|part|pam)\.", role) else role)
        own = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
        assert own - {"genotype"} == {name for name in found.values() if name}
        vectors.inputs_only(*vectors.arrays)
