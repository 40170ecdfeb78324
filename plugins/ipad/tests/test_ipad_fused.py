"""The Triton kernel of `ipad.mutual` against the plain path, in Triton's interpreter and on a GPU
if there is one, and what the setting `fused` promises."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor

from plugins.ipad.tests.ipad_pairs import Side, build, side, stored
from reid_ipad.mutual import mutual_distances
from reid_ipad.settings_matchers import Mutual as Settings
from reidcore.api import Feature, Given
from reidcore.errors import UsageError
from reidcore.ranking.distances import compute_distances
from tests.kernels import Run, has_triton, interpreting, on_gpu

STORES = ("float32", "float16", "bfloat16")
SIZES = {
    "small": (3, 5, 5, 5),
    "published": (2, 3, 128, 128),
    "vehicles": (2, 3, 16, 256),
    "odd": (3, 4, 7, 37),
    "two tiles of queries": (130, 3, 3, 70),
    "two tiles of the gallery": (2, 131, 5, 20),
    "one": (1, 1, 1, 1),
    "more than a launch": (4100, 130, 1, 3),
}
"""Queries, gallery, filters, channels."""


interpreter = pytest.fixture(interpreting, scope="module")


def sides(size: tuple[int, int, int, int]) -> tuple[Side, Side]:
    queries, gallery, *shape = size
    return side(queries, *shape, 0), side(gallery, *shape, 1)


def exact(a: Side, b: Side) -> Tensor:
    """The plain path in float64."""
    wide = [[value.double() for value in pair] for pair in zip(a, b, strict=True)]
    return mutual_distances(*map(tuple, wide))


def fused(run: Run, a: Side, b: Side, exact: bool = False) -> Tensor:
    from reid_ipad.kernel import fused_distances

    return run(fused_distances, *zip(a, b, strict=True), exact)


def lengths(a: Side, b: Side) -> Tensor:
    """[A, B]: what a pair's terms come to, |K_i| |f_j| + |K_j| |f_i|, in float64."""
    (k_a, f_a), (k_b, f_b) = (
        (kernels.double().flatten(1).norm(dim=1), vectors.double().norm(dim=1))
        for kernels, vectors in (a, b)
    )
    return k_a[:, None] * f_b + f_a[:, None] * k_b


def assert_close(found: Tensor, a: Side, b: Side) -> None:
    """As close to the exact distances as sums in float32 of the terms."""
    assert found.dtype == torch.float32
    assert ((found - exact(a, b)).abs() <= 1e-6 * lengths(a, b)).all()


@has_triton
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_the_kernel_equals_the_plain_path(size, store, interpreter):
    """For sizes that no block divides; vectors of 16 bits as they are, and in full."""
    a, b = sides(size)
    kind = getattr(torch, store)
    a, b = ((kernels.to(kind), vectors) for kernels, vectors in (a, b))
    assert_close(fused(interpreter, a, b), a, b)
    if store != "float32":
        a, b = ((kernels, vectors.to(kind).float()) for kernels, vectors in (a, b))
        assert_close(fused(interpreter, a, b, True), a, b)


def whole_numbers(size: tuple[int, int, int, int]) -> tuple[Side, Side]:
    """`sides` of whole numbers from -3 to 3: sums of their products are exact in any order."""
    a, b = (tuple((value * 1e4).round().remainder(7) - 3 for value in pair) for pair in sides(size))
    return a, b


@has_triton
@pytest.mark.parametrize("store", STORES)
def test_a_pair_does_not_depend_on_the_others(store, interpreter):
    """Bit by bit: a pair alone and pictures in another order. Numbers are exact, because the
    interpreter's products of matrices round by a row's place."""
    a, b = whole_numbers((131, 130, 3, 40))
    kind = getattr(torch, store)
    a, b = ((kernels.to(kind), vectors) for kernels, vectors in (a, b))
    whole = fused(interpreter, a, b, store != "float32")
    torch.testing.assert_close(whole, exact(a, b).float(), rtol=3e-7, atol=0)
    turned = fused(interpreter, *(tuple(x.flip(0) for x in pair) for pair in (a, b)))
    assert torch.equal(turned.flip(0, 1), whole)
    for i, j in ((0, 0), (130, 129), (127, 128)):
        alone = fused(interpreter, *(tuple(x[n : n + 1] for x in p) for n, p in ((i, a), (j, b))))
        assert alone.item() == whole[i, j].item()


@has_triton
@pytest.mark.parametrize("store", STORES)
def test_near_duplicates_are_told_apart(store, interpreter):
    """Equal pictures are about 0 apart, and planted distances down to 1e-6 of the length of what is
    compared keep an absolute error at rounding, as on the plain path."""
    kernels, vectors = side(1, 64, 64, 0)
    kernels, vectors = kernels.repeat(4, 1, 1).to(getattr(torch, store)), vectors.repeat(4, 1)
    moved = side(3, 1, 64, 1)[1] * torch.tensor([1e-2, 1e-4, 1e-6])[:, None]
    vectors[1:] += moved
    a = kernels, vectors
    found, expected = fused(interpreter, a, a), exact(a, a)
    length = (kernels[0].double() @ vectors[0].double()).norm()
    assert (found - expected).abs().max() < 1e-6 * length
    assert found.diagonal().max() < 1e-6 * length
    assert found[0, 2].item() == pytest.approx(expected[0, 2].item(), rel=0.02)
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-6 * float(length))


@has_triton
def test_pictures_of_any_size(interpreter):
    """Each picture has a power of two of its own, and its kernel and its vector may be some 2^17
    apart, either way. A NaN reaches its picture's distances, and no other's."""
    a, b = sides((3, 4, 9, 20))
    for (kernels, vectors), scales in ((a, (1e8, 1e-9, 1.0)), (b, (1e-12, 1e9, 1.0, 0.0))):
        kernels *= torch.tensor(scales)[:, None, None]
        vectors *= torch.tensor(scales)[:, None]
    a[1][0] *= 2e3
    b[0][1] *= 2e3
    assert_close(fused(interpreter, a, b), a, b)
    assert fused(interpreter, a, b)[:, 3].eq(0).all()
    b[1][2] = 0
    b[0][2, 4, 5] = torch.nan
    found = fused(interpreter, a, b)
    assert found.isnan().tolist() == [[False, False, True, False]] * 3


@has_triton
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"feature_norm": "pre"},
        {"flip_mode": "matched"},
        {"flip_mode": "matched", "feature_norm": "pre"},
        {"flip_mode": "matched", "views": ("plain", "zoom", "flip")},
    ],
)
def test_the_matcher_gives_the_same_distances(settings, store, interpreter):
    """Of views averaged and beside each other, by the kernel and by plain torch."""
    settings = {"views": ("plain", "flip"), "store": store, **settings}
    plain, other = (build(20, 9, fused=fused, **settings) for fused in ("never", "always"))
    views = range(len(settings["views"]))
    a, b = (
        stored(plain, *(side(count, 9, 20, seed + view) for view in views))
        for count, seed in ((3, 0), (5, 10))
    )
    found, expected = interpreter(other.distance, a, b), plain.distance(a, b)
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)
    own = interpreter(other.distance, a, a)
    assert own.diagonal().max() < 2e-6 < own[0, 1]


@has_triton
def test_what_the_kernel_cannot_compute(interpreter):
    """feature_norm = "post", and a vector that is 2^17 times smaller than its kernel, are plain
    torch's; a demanded kernel is an error that says so."""
    (a, b) = sides((2, 3, 4, 5))
    refused = (
        r"matcher 'pairs' \(ipad\.mutual\): fused = \"always\", but {}\. fused = \"auto\" uses"
    )
    for settings, vectors, reason in (
        ({"feature_norm": "post"}, a[1], 'feature_norm = "post" adds in float64'),
        ({}, a[1] / 1e8, r"a picture's kernel and vector are 2\^\d+ apart in size"),
        ({}, a[1].double(), "the vectors are float64 and the kernel adds in float32"),
    ):
        matcher = build(5, 4, fused="always", **settings)
        templates = stored(matcher, (a[0], vectors)), stored(matcher, b)
        with pytest.raises(UsageError, match=refused.format(reason + ".*")):
            interpreter(matcher.distance, *templates)


@has_triton
def test_unfit_values_are_plain_torchs_without_a_word():
    """For these values alone: the kernel has not failed."""
    from reid_ipad.kernel import fused_distances

    (a, b), auto = sides((2, 3, 4, 5)), build(5, 4).fused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = auto(lambda: fused_distances((a[0], b[0]), (a[1] / 1e8, b[1])))
    assert found is None and not auto.failed


@has_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel does not fail on a GPU")
def test_a_kernel_that_fails_gives_way_once():
    """Without a GPU a launch fails: auto says so once and goes on with plain torch."""
    from reid_ipad.kernel import fused_distances

    (a, b), auto = sides((2, 3, 4, 5)), build(5, 4).fused
    message = r"matcher 'pairs' \(ipad\.mutual\): the fused kernel failed \(.+\); plain torch"
    with pytest.warns(RuntimeWarning, match=message):
        assert auto(lambda: fused_distances(*zip(a, b, strict=True))) is None
    assert auto.failed and not auto.applies(a[1])


def test_a_demanded_kernel_needs_a_gpu():
    matcher = build(5, 4, fused="always")
    a = stored(matcher, side(2, 4, 5, 0))
    reason = "the vectors are on a CPU and the kernel needs an NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        reason = "triton is not installed; it comes with torch's CUDA builds for Linux"
    with pytest.raises(UsageError) as error:
        matcher.distance(a, a)
    assert str(error.value) == (
        f"matcher 'pairs' (ipad.mutual): fused = \"always\", but {reason}. "
        'fused = "auto" uses plain torch there.'
    )


def test_training_uses_no_kernel():
    """In training, and wherever a gradient is needed, even where the kernel is demanded."""
    matcher = build(5, 4, fused="always")
    kernels, vectors = side(2, 4, 5, 0)
    a = {"kernel": kernels, "vector": vectors.requires_grad_()}
    matcher.distance(a, a)[0, 1].backward()
    assert vectors.grad.abs().sum() > 0
    with torch.no_grad():
        matcher.train().distance(a, a)


def test_scoring_on_a_cpu_imports_no_triton():
    program = (
        "import sys, torch\n"
        "from plugins.ipad.tests.ipad_pairs import build, side, stored\n"
        "matcher = build(5, 4)\n"
        "a = stored(matcher, side(2, 4, 5, 0))\n"
        "before = 'triton' in sys.modules\n"
        "matcher.distance(a, a)\n"
        "sys.exit(before or 'triton' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@has_triton
@on_gpu
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("size", [*SIZES.values(), (300, 500, 128, 128), (130, 260, 16, 1000)])
def test_the_kernel_equals_the_plain_path_on_a_gpu(size, store):
    from reid_ipad.kernel import fused_distances

    kind = getattr(torch, store)
    a, b = ((kernels.to(kind), vectors) for kernels, vectors in sides(size))
    there = [tuple(value.cuda() for value in pair) for pair in zip(a, b, strict=True)]
    found = fused_distances(*there)
    alone = fused_distances(*(tuple(value[-1:] for value in pair) for pair in there))
    assert alone.item() == found[-1, -1].item()
    assert_close(found.cpu(), a, b)
    rounded = [(kernels, vectors.to(kind).float()) for kernels, vectors in (a, b)]
    there = [tuple(value.cuda() for value in pair) for pair in zip(*rounded, strict=True)]
    assert_close(fused_distances(*there, store != "float32").cpu(), *rounded)


@has_triton
@on_gpu
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("feature_norm", ["none", "pre"])
def test_the_matcher_uses_the_kernel_on_a_gpu(feature_norm, store):
    """Distances of a GPU by the kernel, of its plain path and of the CPU, as scored in tiles."""
    settings = {"feature_norm": feature_norm, "store": store}
    plain = build(128, 128, fused="never", **settings)
    features = {"x.vector": Feature.vector(128), "x.kernel": Feature.tensor(128, 128)}
    config = Settings(feature="x.vector", kernel="x.kernel", **settings)
    matching = config.describe(Given((8, 8), features=features))
    a, b = (stored(plain, side(count, 128, 128, count)) for count in (70, 300))
    expected = compute_distances(plain, matching, a, b)
    a, b = ({key: value.cuda() for key, value in part.items()} for part in (a, b))
    for setting in ("never", "auto", "always"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            matcher = build(128, 128, fused=setting, **settings).cuda()
            found = compute_distances(matcher, matching, a, b, memory=2e-4).cpu()
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)
