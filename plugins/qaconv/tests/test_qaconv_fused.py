"""The Triton kernel of `qaconv.matcher` against the plain path, in Triton's interpreter and on a
GPU if there is one, and what the settings `operands` and `fused` promise."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_qaconv.matching import QAConv, best_matches, build_matcher
from reid_qaconv.settings_matching import Matcher
from reidcore.api import Feature, Given
from reidcore.errors import UsageError
from reidcore.modules import Context
from reidcore.ranking.distances import compute_distances
from tests.kernels import has_triton, interpreting, on_gpu

interpreter = pytest.fixture(interpreting, scope="module")


def vectors(pictures: int, locations: int, channels: int, seed: int) -> Tensor:
    """float32 [pictures, locations, channels], unit vectors."""
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(pictures, locations, channels, generator=draw), dim=2)


def sides(size: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Query and gallery vectors, and weights of both signs, of (A, B, locations, channels)."""
    queries, gallery, locations, channels = size
    weights = torch.randn(2, locations, generator=torch.Generator().manual_seed(2))
    a, b = vectors(queries, locations, channels, 0), vectors(gallery, locations, channels, 1)
    return a, b, weights


def reference(a: Tensor, b: Tensor, weights: Tensor, operands: torch.dtype) -> Tensor:
    """The weighted best matches of rounded values, in float64."""
    a, b = (side.to(operands).double() for side in (a, b))
    gallery, query = best_matches(a, b)
    return gallery @ weights[0].double() + query @ weights[1].double()


def assert_close(found: Tensor, expected: Tensor, weights: Tensor) -> None:
    """Equal but for sums in float32 of cosines, each at most some 1e-7 off."""
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 4e-7 * weights.abs().sum()


def matcher(shape: tuple[int, int, int], **settings) -> QAConv:
    """An evaluating matcher in float32 with weights and statistics of both signs."""
    given = Given((1, 1), features={"x.map": Feature.map(*shape)})
    built = build_matcher(Matcher(feature="x.map", **settings), Context(given, "pairs")).eval()
    draw = torch.Generator().manual_seed(3)
    for value in (*built.parameters(), *built.buffers()):
        if value.is_floating_point():
            value.data.copy_(torch.randn(value.shape, generator=draw) / 3)
    for norm in (built.bn, built.logit_bn):
        norm.running_var.abs_().add_(0.02)
    return built.requires_grad_(False)


def templates(built: QAConv, pictures: int, seed: int) -> dict[str, Tensor]:
    """What is stored of random pictures."""
    channels, height, width = built.shape
    maps = vectors(pictures, height * width, channels, seed).transpose(1, 2)
    return built.merge([{"map": maps.reshape(pictures, *built.shape)}])


def copied(built: QAConv, **settings) -> QAConv:
    """The same matcher with other settings."""
    kernel = {"kernel": built.kernel, "head": "untied" if built.halves == 2 else "shared"}
    other = matcher(built.shape, **{**kernel, "score_scale": built.score_scale, **settings})
    other.load_state_dict(built.state_dict())
    return other


SIZES = {
    "published": (2, 2, 192, 128),
    "one tile": (3, 2, 16, 16),
    "odd": (2, 3, 35, 20),
    "two blocks of pictures": (2, 67, 12, 8),
    "one location": (2, 3, 1, 3),
    "two equal tiles": (1, 2, 100, 24),
    "channels in chunks": (2, 2, 15, 150),
    "more than 192 locations": (1, 2, 200, 16),
}

LARGER = [(70, 130, 192, 128), (3, 70, 288, 128), (2, 3, 386, 96), (3, 66, 192, 1152)]


KERNELS = [
    # The interpreter takes seconds for published sizes; smaller ones show other operands as well.
    pytest.param(
        size,
        operands,
        id=f"{name}-{operands}",
        marks=[pytest.mark.slow] if name == "published" and operands != "float32" else [],
    )
    for name, size in SIZES.items()
    for operands in ("float32", "float16", "bfloat16")
]


@has_triton
@pytest.mark.parametrize(("size", "operands"), KERNELS)
def test_the_kernel_equals_the_plain_path(size, operands, interpreter):
    """For maps of any size, with tiles and channels that no block divides."""
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = sides(size)
    kind = getattr(torch, operands)
    found = interpreter(weighted_matches, a, b, weights, kind)
    assert_close(found, reference(a, b, weights, kind), weights)


@has_triton
@pytest.mark.parametrize(
    "operands, length, channels",
    [
        ("float32", 193, 9),
        pytest.param("float16", 257, 130, marks=pytest.mark.slow),
        pytest.param("bfloat16", 386, 9, marks=pytest.mark.slow),
    ],
)
def test_long_maps_are_scored_side_after_side(operands, length, channels, interpreter):
    """Maps of more locations than one program holds maxima of: one side's, then the other's."""
    from reid_qaconv.kernel import choose_blocks, weighted_matches

    kind = getattr(torch, operands)
    for locations, both in ((length, False), (192, True)):
        blocks = choose_blocks(locations, channels, kind == torch.float32, (9, 0))
        assert blocks.both(locations) == both
    a, b, weights = sides((1, 2, length, channels))
    found = interpreter(weighted_matches, a, b, weights, kind)
    assert_close(found, reference(a, b, weights, kind), weights)


def whole_numbers(size: tuple[int, int, int, int]) -> list[Tensor]:
    """`sides` of whole numbers from -3 to 3: sums of their products are exact in any order."""
    return [(value * 1e3).round().remainder(7) - 3 for value in sides(size)]


@has_triton
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", [(3, 70, 24, 32), (2, 66, 15, 150)])
def test_a_pair_does_not_depend_on_the_others(size, operands, interpreter):
    """Bit by bit: a pair alone, pictures in another order, and every pair of the plain path.
    Numbers are exact, because the interpreter's products of matrices round by a row's place."""
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = whole_numbers(size)
    kind = getattr(torch, operands)
    whole = interpreter(weighted_matches, a, b, weights, kind)
    assert torch.equal(whole, reference(a, b, weights, kind).float())
    for query, picture in ((0, 0), (len(a) - 1, 65), (1, 63)):
        one = a[query : query + 1], b[picture : picture + 1]
        alone = interpreter(weighted_matches, *one, weights, kind)
        assert alone.item() == whole[query, picture].item()
    turned = interpreter(weighted_matches, a.flip(0), b.flip(0), weights, kind)
    assert torch.equal(turned.flip(0, 1), whole)


@has_triton
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
def test_equal_pictures_tie(operands, interpreter):
    """Equal gallery pictures have one score in whichever row of a tile they are, and equal
    locations are one best match; the best matches of zero vectors are zero."""
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = whole_numbers((2, 70, 20, 24))
    kind = getattr(torch, operands)
    b[[3, 41, 69]] = b[10].clone()
    b[4], b[5], b[6] = a[0], a[0, 7], 0
    a[1, 3:9] = a[1, 2].clone()
    found = interpreter(weighted_matches, a, b, weights, kind)
    assert torch.equal(found, reference(a, b, weights, kind).float())
    assert found[:, [3, 10, 41, 69]].eq(found[:, 10:11]).all()
    assert not found[:, 6].any()


@has_triton
def test_values_that_are_no_unit_vectors(interpreter):
    """float32 keeps its range: each picture is brought to float16's by its own power of two. A NaN
    reaches its picture's scores, and no other's."""
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = sides((3, 4, 20, 24))
    a *= torch.tensor([1e6, 1e-8, 3.0])[:, None, None]
    b *= torch.tensor([1e-12, 1e9, 1.0, 0.0])[:, None, None]
    found = interpreter(weighted_matches, a, b, weights, torch.float32)
    expected = reference(a, b, weights, torch.float32)
    torch.testing.assert_close(found, expected.float(), rtol=2e-5, atol=0)
    for length in (20, 193):
        a, b, weights = sides((2, 3, length, 8))
        b[1, length // 2, 3] = torch.nan
        found = interpreter(weighted_matches, a, b, weights, torch.float32)
        assert found.isnan().tolist() == [[False, True, False]] * 2


@has_triton
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "settings",
    [
        {"head": "untied"},
        {"head": "shared", "score_scale": 1.0},
        {"head": "untied", "kernel": 3, "score_scale": 3.0},
        {"head": "shared", "kernel": 3},
    ],
)
def test_the_matcher_gives_the_same_distances(settings, operands, interpreter):
    """Distances by the kernel, by plain torch, and by plain torch in float64 of the rounded
    values: norms, weights, biases and the sigmoid are the same."""
    plain = matcher((12, 5, 4), operands=operands, fused="never", **settings)
    fused = copied(plain, operands=operands, fused="always")
    a, b = templates(plain, 3, 0), templates(plain, 5, 1)
    assert a["map"].dtype == getattr(torch, operands)
    found = interpreter(fused.distance, a, b)
    expected = plain.distance(a, b)
    exact = plain.double().distance(*({"map": side["map"].double()} for side in (a, b)))
    assert found.dtype == expected.dtype == torch.float32
    bound = 1e-4 * exact.std()
    assert (found - exact).abs().max() < bound and (found - expected).abs().max() < bound


@pytest.mark.parametrize("operands", ["float16", "bfloat16"])
def test_operands_mean_the_same_on_a_cpu(operands):
    """Stored maps have the declared type; distances are those of the rounded values, whether
    they were stored or are rounded there, and differ from those of float32."""
    exact, rounded = (matcher((8, 4, 3), operands=kind) for kind in ("float32", operands))
    rounded.load_state_dict(exact.state_dict())
    a, b = templates(exact, 3, 0), templates(exact, 4, 1)
    given = Given((1, 1), features={"x.map": Feature.map(8, 4, 3)})
    declared = Matcher(feature="x.map", operands=operands).describe(given).template["map"]
    stored = [rounded.merge([side]) for side in (a, b)]
    kind = getattr(torch, operands)
    assert declared.dtype == operands and all(side["map"].dtype == kind for side in stored)
    found = rounded.distance(*stored)
    assert torch.equal(found, rounded.distance(a, b))
    widened = ({"map": side["map"].float()} for side in stored)
    assert torch.equal(found, exact.distance(*widened))
    assert not torch.equal(found, exact.distance(a, b))


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
def test_merged_views_are_rounded_once(operands):
    """The mean of stored views is taken and scaled in float32; float64 stays as it is."""
    built = matcher((8, 4, 3), operands=operands)
    views = [templates(built, 3, seed) for seed in (0, 1)]
    mean = sum(view["map"].float() for view in views)
    expected = F.normalize(mean, dim=1).to(getattr(torch, operands))
    assert torch.equal(built.merge(views)["map"], expected)
    wide = [{"map": view["map"].double()} for view in views]
    assert built.merge(wide)["map"].dtype == torch.float64


def test_training_rounds_nothing():
    """With gradients, in training mode and with norms that train, logits are those of float32."""
    exact, rounded = (matcher((8, 4, 3), operands=kind) for kind in ("float32", "bfloat16"))
    a, b = templates(exact, 3, 0), templates(exact, 4, 1)
    rounded.load_state_dict(exact.state_dict())
    assert not torch.equal(exact.logits(a, b), rounded.logits(a, b))
    learnt = {"map": a["map"].clone().requires_grad_()}
    assert torch.equal(exact.logits(a, b), rounded.logits(learnt, b))
    rounded.requires_grad_(True)
    assert torch.equal(exact.logits(a, b), rounded.logits(a, b))
    with torch.no_grad():
        assert not torch.equal(exact.logits(a, b), rounded.logits(a, b))
        for part in ("bn", "logit_bn"):
            for built in (exact, rounded):
                built.eval().get_submodule(part).train()
            assert torch.equal(exact.logits(a, b), rounded.logits(a, b))
        assert torch.equal(exact.train().logits(a, b), rounded.train().logits(a, b))


def test_training_uses_no_kernel():
    """Gradients come from the plain path, even where the kernel is demanded and cannot work."""
    built = matcher((8, 4, 3), fused="always").train().requires_grad_(True)
    a, b = templates(built, 3, 0), templates(built, 4, 1)
    logits = built.logits(a, b)
    logits.sum().backward()
    assert built.fc.weight.grad.abs().sum() > 0


def test_a_demanded_kernel_that_cannot_work_is_the_users_error():
    """On a CPU, and for float64 maps, with the matcher's name, the reason and what to set."""
    built = matcher((8, 4, 3), fused="always")
    a = templates(built, 3, 0)
    reason = "the maps are on a CPU and the kernel needs an NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        reason = "triton is not installed; it comes with torch's CUDA builds for Linux"
    with pytest.raises(UsageError) as error:
        built.distance(a, a)
    assert str(error.value) == (
        f"matcher 'pairs' (qaconv.matcher): fused = \"always\", but {reason}. "
        'fused = "auto" uses plain torch there.'
    )
    wide = {"map": a["map"].double()}
    with pytest.raises(UsageError, match="the maps are float64 and the kernel adds in float32"):
        built.double().distance(wide, wide)


@has_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel does not fail on a GPU")
def test_a_kernel_that_fails_gives_way_once():
    """Without a GPU a launch fails as it does on one that lacks what the kernel needs: auto says so
    once and goes on with plain torch, always is an error with the reason."""
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = sides((2, 3, 20, 24))
    auto, always = (matcher((24, 5, 4), fused=setting).fused for setting in ("auto", "always"))

    def scored() -> Tensor:
        return weighted_matches(a, b, weights, torch.float32)

    with pytest.warns(RuntimeWarning, match=r"matcher 'pairs' .*kernel failed \(.+\); plain torch"):
        assert auto(scored) is None
    assert auto.failed and not auto.applies(a)
    with pytest.raises(UsageError, match=r"fused = \"always\", but the kernel failed \(.+\)\. "):
        always(scored)


def test_scoring_on_a_cpu_imports_no_triton():
    program = (
        "import sys, torch\n"
        "from reid_qaconv.matching import build_matcher\n"
        "from reid_qaconv.settings_matching import Matcher\n"
        "from reidcore.api import Feature, Given\n"
        "from reidcore.modules import Context\n"
        "given = Given((1, 1), features={'x.map': Feature.map(4, 3, 2)})\n"
        "built = build_matcher(Matcher(feature='x.map'), Context(given, 'pairs')).eval()\n"
        "maps = {'map': torch.ones(2, 4, 3, 2)}\n"
        "with torch.no_grad():\n"
        "    built.distance(maps, maps)\n"
        "sys.exit('triton' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@has_triton
def test_the_benchmark_runs_without_a_gpu():
    script = Path(__file__).parents[3] / "benchmarks" / "qaconv_gpu.py"
    ran = subprocess.run([sys.executable, script, "--small"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("times as fast as plain torch") == 3


def test_costs_follow_the_settings():
    """Stored maps of 16 bits are half as large, and the kernel alone needs no room for maxima."""
    given = Given((384, 128), features={"x.map": Feature.map(128, 24, 8)})
    plain, fused = (
        Matcher(feature="x.map", operands=operands, fused=setting).describe(given)
        for operands, setting in (("float32", "auto"), ("bfloat16", "always"))
    )
    assert (plain.template["map"].bytes, fused.template["map"].bytes) == (96 * 1024, 48 * 1024)
    assert (plain.pair_bytes, fused.pair_bytes) == (4 * (4 * 192 + 4), 16)
    assert plain.pair_flops == fused.pair_flops


@has_triton
@on_gpu
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", [*SIZES.values(), *LARGER])
def test_the_kernel_equals_the_plain_path_on_a_gpu(size, operands):
    from reid_qaconv.kernel import weighted_matches

    a, b, weights = sides(size)
    kind = getattr(torch, operands)
    found = weighted_matches(a.cuda(), b.cuda(), weights.cuda(), kind)
    alone = weighted_matches(a[-1:].cuda(), b[-1:].cuda(), weights.cuda(), kind)
    assert alone.item() == found[-1, -1].item()
    assert_close(found.cpu(), reference(a, b, weights, kind), weights)


@has_triton
@on_gpu
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_matcher_uses_the_kernel_on_a_gpu(kernel, operands):
    """Distances of a GPU by the kernel, of its plain path and of the CPU, in tiles as scored."""
    plain = matcher((128, 24, 8), operands=operands, fused="never", kernel=kernel)
    a, b = templates(plain, 5, 0), templates(plain, 70, 1)
    given = Given((384, 128), features={"x.map": Feature.map(*plain.shape)})
    matching = Matcher(feature="x.map", operands=operands).describe(given)
    expected = compute_distances(plain, matching, a, b)
    a, b = ({"map": side["map"].cuda()} for side in (a, b))
    for setting in ("never", "auto", "always"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            fused = copied(plain, operands=operands, fused=setting).cuda()
            found = compute_distances(fused, matching, a, b, memory=2e-4).cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=4e-6)
