"""The heads of IPAD: compression, controller, dynamic kernels and self-guided features."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from plugins.ipad.tests.ipad_branches import (
    compression_of,
    controller_of,
    given_map,
    images_of,
    random_maps,
)
from reid_ipad.branches import (
    apply_kernels,
    build_compressed,
    build_mutual_guided,
    build_self_guided,
    convolved,
    normalised,
)
from reid_ipad.settings_heads import Compressed, MutualGuided, SelfGuided
from reid_ipad.sizes import fitting_channels, fitting_grid
from reidcore.api import WiringError
from reidcore.modules import Context
from tests.oracles import oracle

NORMS = ("none", "filter", "frobenius", "column")
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def self_guided(shape: tuple[int, int, int], wanted=("vector", "map"), **settings):
    context = Context(given_map(*shape), "own", wanted)
    torch.manual_seed(0)
    return build_self_guided(SelfGuided(source="x.map", **settings), context).double()


@pytest.mark.oracle
def test_self_guided_features_equal_the_transcription():
    """Compression, controller output, kernels of every norm and self-guided features in pooled and
    map form, for kernels cut from maps of several sizes and from a vector, with a dead filter."""
    with oracle("ipad/controller_self_guided") as vectors:
        for case in vectors.sidecar["cases"]:
            name, channels = case["prefix"], case["C"]
            maps = vectors.input(f"{name}_X")
            grid = (case["h"], case["w"]) if case["controller"] == "map" else (1, 1)
            f0 = compression_of(vectors, name)(maps)
            vectors.compare(f"{name}_F0", f0, **CLOSE)
            vectors.compare(
                f"{name}_F0_lastbn", compression_of(vectors, name, last="bn")(maps), **CLOSE
            )
            vectors.compare(f"{name}_f", f0.mean((2, 3)), **CLOSE)
            for relu, norm in product((True, False), NORMS):
                kind = "relu" if relu else "lin"
                controller = controller_of(vectors, name, channels, grid, relu, norm)
                entries, array = controller.entries(maps), f"{name}_ctrl_{kind}"
                vectors.compare(array, entries.reshape(vectors.arrays[array].shape), **CLOSE)
                kernels = controller(maps)
                vectors.compare(f"{name}_K_{kind}_{norm}", kernels, **CLOSE)
                pooled = apply_kernels(kernels, f0.mean((2, 3)))
                vectors.compare(f"{name}_s_{kind}_{norm}", pooled, **CLOSE)
                if norm == "filter":
                    f1 = convolved(kernels, f0)
                    vectors.compare(f"{name}_F1_{kind}_filter", f1, **CLOSE)
                    vectors.compare(f"{name}_gap_relu_F1_{kind}", f1.relu().mean((2, 3)), **CLOSE)
                    vectors.compare(f"{name}_s_{kind}_{norm}", f1.mean((2, 3)), **CLOSE)


def naive_kernel(entries: Tensor, channels: int, norm: str, layout: str) -> list[list[float]]:
    """Readings A2 and A3 of one picture's controller output, number by number."""
    flat = [
        float(entries[c, y, x])
        for c in range(entries.shape[0])
        for y in range(entries.shape[1])
        for x in range(entries.shape[2])
    ]
    each = range(channels)
    kernel = [
        [flat[o * channels + i if layout == "out_in" else i * channels + o] for i in each]
        for o in each
    ]
    groups = {
        "none": [],
        "frobenius": [[(o, i) for o in each for i in each]],
        "filter": [[(o, i) for i in each] for o in each],
        "column": [[(o, i) for o in each] for i in each],
    }[norm]
    for group in groups:
        length = math.sqrt(sum(kernel[o][i] ** 2 for o, i in group))
        for o, i in group:
            kernel[o][i] /= max(length, 1e-12)
    return kernel


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_vector_equals_loops_over_the_kernel(norm, layout):
    """The head's vector is the mean over all locations of every filter's sum over channels."""
    head = self_guided(
        (6, 3, 2), channels=6, squeeze=2, kernel_norm=norm, kernel_layout=layout
    ).eval()
    maps = random_maps(2, 6, 3, 2)
    alone = self_guided(
        (6, 3, 2), {"vector"}, channels=6, squeeze=2, kernel_norm=norm, kernel_layout=layout
    ).eval()
    with torch.no_grad():
        found = head({"x.map": maps}, images_of(2))
        pooled = alone({"x.map": maps}, images_of(2))["vector"]
        f0, entries = head.compression(maps), head.controller.entries(maps)
    for picture in range(2):
        kernel = naive_kernel(entries[picture], 6, norm, layout)
        for o in range(6):
            places = [
                sum(kernel[o][i] * float(f0[picture, i, y, x]) for i in range(6))
                for y, x in product(range(3), range(2))
            ]
            for vector in (found["vector"], pooled):
                assert float(vector[picture, o]) == pytest.approx(sum(places) / 6, abs=1e-12)
            torch.testing.assert_close(
                found["map"][picture, o].flatten(), torch.tensor(places, dtype=torch.float64)
            )


def test_both_forms_are_equal_without_what_follows():
    """A4: pooling commutes with the kernel; with a ReLU between them it does not, unless kernels
    and maps are not negative."""
    settings = {"channels": 6, "squeeze": 2, "controller_final_relu": False}
    maps = {"x.map": random_maps(3, 6, 3, 2)}

    def vector(**more) -> Tensor:
        head = self_guided((6, 3, 2), {"vector"}, **{**settings, **more}).eval()
        with torch.no_grad():
            return head(maps, images_of(3))["vector"]

    pooled = vector()
    torch.testing.assert_close(vector(dynamic_form="map"), pooled, rtol=1e-12, atol=1e-14)
    cut = vector(dynamic_form="map", post_conv="relu")
    assert (cut - pooled).abs().max() > 1e-3
    same = {"dynamic_form": "map", "controller_final_relu": True}
    torch.testing.assert_close(vector(**same, post_conv="relu"), vector(**same))


def test_a_vector_depends_on_the_map_that_is_read():
    """Grad-CAM of the vector in the branch's map: every location has an equal share in the mean.
    Where nobody reads the map, none is made."""
    maps = {"x.map": random_maps(2, 6, 3, 2).requires_grad_()}
    found = self_guided((6, 3, 2), channels=6, squeeze=2)(maps, images_of(2))
    (gradient,) = torch.autograd.grad(found["vector"].sum(), found["map"])
    torch.testing.assert_close(gradient, torch.full_like(gradient, 1 / 6))
    alone = self_guided((6, 3, 2), {"vector"}, channels=6, squeeze=2)
    made = []
    alone.post.register_forward_hook(lambda *_: made.append(1))
    assert set(alone(maps, images_of(2))) == {"vector"} and not made


def test_batch_norm_after_the_kernel_sees_every_location():
    """post_conv = "bn" normalises over pictures and locations of the map, in training."""
    head = self_guided((6, 3, 2), channels=6, squeeze=2, dynamic_form="map", post_conv="bn")
    found = head({"x.map": random_maps(4, 6, 3, 2)}, images_of(4))["map"]
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(6).double(), rtol=0, atol=1e-6)
    assert head.post.num_batches_tracked == 1


def test_a_dead_filter_stays_zero():
    """A filter, a channel and a whole kernel of zeros give zeros and zero gradients, no NaN."""
    for norm in NORMS:
        kernels = torch.zeros(2, 3, 3, dtype=torch.float64)
        kernels[0, 0, 0] = 2.0
        kernels.requires_grad_()
        found = normalised(kernels, norm)
        assert found[0, 1:].abs().sum() == 0 and found[1].abs().sum() == 0
        found.square().sum().backward()
        assert kernels.grad is not None and kernels.grad.isfinite().all()


def test_the_controller_reads_what_it_is_told():
    """From the compressed map it has that map's width; a grid averages what it reads; [1, 1] reads
    the pooled vector, so that moving the locations changes nothing."""
    head = self_guided((12, 4, 4), channels=8, squeeze=2, controller_input="compressed")
    assert head.controller.layers[0].weight.shape[:2] == (4, 8)
    maps = random_maps(2, 12, 4, 4)
    mixed = maps.flatten(2)[:, :, torch.randperm(16)].view_as(maps)
    for grid, equal in (((1, 1), True), ((2, 2), False)):
        head = self_guided((12, 4, 4), channels=8, squeeze=2, controller_grid=grid).eval()
        with torch.no_grad():
            a, b = head.controller(maps), head.controller(mixed)
        assert torch.allclose(a, b, atol=1e-12) is equal
        assert head.controller.layers[4].out_channels == 64 // (grid[0] * grid[1])


def test_layers_follow_the_settings():
    """Widths, kernels, norms and what follows the last convolution."""
    context = Context(given_map(12, 4, 4), "own", {"map"})
    head = build_compressed(
        Compressed(
            source="x.map",
            channels=8,
            compress_widths=[10],
            compress_kernel=3,
            compress_last="none",
        ),
        context,
    )
    kinds = [type(layer).__name__ for layer in head.compression]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert [layer.out_channels for layer in head.compression[::3]] == [10, 8]
    assert head({"x.map": torch.randn(2, 12, 4, 4)}, images_of(2))["map"].shape == (2, 8, 4, 4)
    head = self_guided((12, 4, 4), channels=8, squeeze=2, controller_bn=True)
    kinds = [type(layer).__name__ for layer in head.controller.layers]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_only_what_is_wanted_is_computed():
    """Without a reader of the kernel no controller runs."""
    context = Context(given_map(8, 4, 2), "pair", {"vector"})
    head = build_mutual_guided(MutualGuided(source="x.map", channels=8, squeeze=2), context)
    ran = []
    head.controller.register_forward_hook(lambda *_: ran.append(1))
    assert set(head({"x.map": torch.randn(2, 8, 4, 2)}, images_of(2))) == {"vector"}
    assert not ran


PAPER = [
    # (head, channels, locations, squeeze, compression, controller)
    (SelfGuided, 512, (16, 8), 4, 1_575_936, 2_362_368),
    (SelfGuided, 512, (16, 8), 8, 1_575_936, 1_116_672),
    (SelfGuided, 512, (16, 8), 16, 1_575_936, 542_976),
    (SelfGuided, 512, (16, 8), 32, 1_575_936, 268_416),
    (SelfGuided, 512, (16, 16), 16, 1_575_936, 410_880),
    (MutualGuided, 128, (16, 8), 16, 295_680, 295_296),
    (MutualGuided, 256, (16, 16), 16, 656_896, 311_808),
]


@pytest.mark.parametrize(("kind", "channels", "grid", "squeeze", "compress", "control"), PAPER)
def test_heads_have_the_sizes_of_the_paper(kind, channels, grid, squeeze, compress, control):
    """Persons' and vehicles' maps of a ResNet-50 with last stride 1; the mutual controller's output
    has as many channels as the kernel, the self-guided one's 2048 or 1024."""
    build = build_self_guided if kind is SelfGuided else build_mutual_guided
    context = Context(given_map(2048, *grid), "x", {"vector"})
    head = build(kind(source="x.map", channels=channels, squeeze=squeeze), context)
    count = lambda module: sum(value.numel() for value in module.parameters())  # noqa: E731
    assert (count(head.compression), count(head.controller)) == (compress, control)
    places = grid[0] * grid[1]
    assert head.controller.layers[4].out_channels * places == channels**2


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        (
            {},
            (2048, 24, 8),
            "is 512, but the 262144 entries of a 512 x 512 kernel do not divide among 24 x 8 = 192 "
            "locations of 'x.map'. Use channels = 504 or 528, or controller_grid = [16, 8].",
        ),
        (
            {"channels": 8},
            (2048, 24, 8),
            "Use channels = 24, or controller_grid = [16, 4].",
        ),
        (
            {"controller_grid": (3, 4)},
            (2048, 16, 8),
            "do not divide among 3 x 4 = 12 locations. Use channels = 510 or 516, or "
            "controller_grid = [16, 8].",
        ),
        ({"controller_grid": (16, 8)}, (64, 8, 4), "has only 8 x 4 locations"),
        ({"squeeze": 65}, (64, 16, 8), "reads only 64 channels"),
        ({"post_conv": "bn"}, (64, 16, 8), "use dynamic_form = 'map' with it"),
    ],
)
def test_wiring_says_what_would_fit(settings, shape, said):
    with pytest.raises(WiringError) as error:
        SelfGuided(source="x.map", **settings).outputs(given_map(*shape))
    assert said in str(error.value)


def test_what_is_said_to_fit_fits():
    """Suggested channels and grids are accepted, and there is nothing closer."""
    for channels, height, width in product(range(1, 40, 3), range(1, 9), range(1, 9)):
        places = height * width
        below, above = fitting_channels(channels, places)
        fit = [n for n in range(1, above + 1) if n * n % places == 0]
        assert above == next(n for n in range(channels + 1, above + 1) if n * n % places == 0)
        assert below == max((n for n in fit if n <= channels), default=0)
        rows, columns = fitting_grid(channels, height, width)
        assert channels**2 % (rows * columns) == 0 and rows <= height and columns <= width
        assert (rows, columns) == (height, width) or below != channels


def test_figures_4_and_6():
    """Heat of both branches from 0 to 1 in each picture, by norm or mean, and the distance of the
    pictures before and after their kernels."""
    maps = random_maps(2, 6, 3, 2)
    features = {"x.map": maps.clone().requires_grad_()}
    for kind in ("l2", "mean"):
        head = self_guided((6, 3, 2), channels=6, squeeze=2, heat=kind).eval()
        found = head.explain(features, images_of(2))
        f0, kernels = head.compression(maps), head.controller(maps)
        own = torch.einsum("boc,bchw->bohw", kernels, f0)
        for name, values in (("global_branch", maps), ("self_guided_branch", own)):
            flat = values.square().sum(1).sqrt() if kind == "l2" else values.mean(1)
            low, high = flat.flatten(1).min(1).values, flat.flatten(1).max(1).values
            expected = (flat - low[:, None, None]) / (high - low)[:, None, None]
            actual = torch.from_numpy(found[name].values)
            torch.testing.assert_close(actual, expected.detach())
    table = found["distances"]
    before = (f0.mean((2, 3))[0] - f0.mean((2, 3))[1]).norm().item()
    after = (own.mean((2, 3))[0] - own.mean((2, 3))[1]).norm().item()
    assert table.columns == ("picture", "other", "before", "after")
    assert table.rows == ((0, 1, pytest.approx(before), pytest.approx(after)),)
