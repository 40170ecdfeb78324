"""Augmentations of the core, and the test views."""

from __future__ import annotations

import colorsys
import itertools
import re

import numpy as np
import pytest
import torch
from oracles import oracle

from reidcore.api import Given
from reidcore.builtin import settings
from reidcore.builtin.augmentations import (
    build_erase,
    build_flip,
    build_grey,
    build_jitter,
    build_occlude,
    build_pad_crop,
    occlusion_box,
    with_brightness,
    with_contrast,
    with_hue,
    with_saturation,
)
from reidcore.data.decoding import IMAGENET_PIXELS, normalized
from reidcore.modules import Context, Images, Matcher
from reidcore.ranking.templates import view_of
from reidcore.runfiles.strict import structure

CONTEXT = Context(Given((8, 8), identities=9), "augment")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 13, width: int = 7) -> torch.Tensor:
    return torch.randint(1, 255, (3, height, width), generator=generator(), dtype=torch.uint8)


AUGMENTATIONS = {
    "flip": build_flip(settings.Flip(), CONTEXT),
    "pad_crop": build_pad_crop(settings.PadCrop(pad=4), CONTEXT),
    "erase": build_erase(settings.Erase(), CONTEXT),
    "erase random": build_erase(settings.Erase(fill="random"), CONTEXT),
    "occlude": build_occlude(settings.Occlude(), CONTEXT),
    "jitter": build_jitter(settings.Jitter(), CONTEXT),
    "grey": build_grey(settings.Grey(p=0.5), CONTEXT),
    "grey of a channel": build_grey(settings.Grey(p=0.5, of="channel"), CONTEXT),
}
every_augmentation = pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)


@every_augmentation
def test_augmentations_keep_type_and_shape_and_follow_the_generator(augment):
    """The result is a uint8 picture of the same size that follows from the generator alone; the
    picture given and torch's global random state are unchanged."""
    source = picture()
    before, state = source.clone(), torch.random.get_rng_state()
    results = [augment(source, generator(seed)) for seed in range(20)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    again = [augment(source, generator(seed)) for seed in range(20)]
    assert all(r.dtype == torch.uint8 and r.shape == source.shape for r in results)
    assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))
    assert any(not torch.equal(results[0], other) for other in results)
    assert torch.equal(source, before)


@pytest.mark.parametrize(
    "augment",
    [
        build_flip(settings.Flip(p=0), CONTEXT),
        build_pad_crop(settings.PadCrop(pad=0), CONTEXT),
        build_erase(settings.Erase(p=0), CONTEXT),
        build_occlude(settings.Occlude(p=0), CONTEXT),
        build_occlude(settings.Occlude(area=0), CONTEXT),
        build_jitter(settings.Jitter(p=0), CONTEXT),
        build_jitter(settings.Jitter(p=1, brightness=0, contrast=0, saturation=0, hue=0), CONTEXT),
        build_grey(settings.Grey(p=0), CONTEXT),
    ],
)
def test_augmentations_that_are_switched_off_change_nothing(augment):
    """With probability or strength 0 every picture is as it was, to the last bit."""
    levels = torch.arange(256, dtype=torch.uint8).repeat(3, 1)
    source = torch.stack([levels, levels.flip(1), levels.roll(100, 1)], dim=1)
    for seed in range(20):
        assert torch.equal(augment(source, generator(seed)), source)


@pytest.mark.parametrize(
    ("p", "augment"),
    [
        (0.5, build_erase(settings.Erase(p=0.5), CONTEXT)),
        (0.3, build_occlude(settings.Occlude(p=0.3), CONTEXT)),
        (1.0, build_occlude(settings.Occlude(), CONTEXT)),
        (0.2, build_jitter(settings.Jitter(p=0.2), CONTEXT)),
        (0.1, build_grey(settings.Grey(p=0.1), CONTEXT)),
    ],
)
def test_augmentations_change_as_many_pictures_as_told(p, augment):
    """About a share p of the pictures is changed."""
    source, dice = picture(), generator()
    changed = sum(not torch.equal(augment(source, dice), source) for _ in range(600))
    assert abs(changed - 600 * p) <= 4 * (600 * p * (1 - p)) ** 0.5


@pytest.mark.parametrize(("p", "flipped"), [(0.0, 0), (1.0, 200), (0.25, 50)])
def test_flip_mirrors_columns_as_often_as_told(p, flipped):
    """A share p of the pictures has its columns reversed, the others are as they were."""
    flip, source, dice = build_flip(settings.Flip(p=p), CONTEXT), picture(), generator()
    mirrored = torch.stack([source[:, :, 6 - column] for column in range(7)], dim=2)
    count = 0
    for _ in range(200):
        result = flip(source, dice)
        count += torch.equal(result, mirrored)
        assert torch.equal(result, mirrored) or torch.equal(result, source)
    assert abs(count - flipped) <= 20 * (0 < p < 1)


def test_pad_crop_shifts_and_fills():
    """The result is the picture shifted by up to `pad` in both axes, with `fill` where nothing was,
    and all shifts occur."""
    crop, source, dice = (
        build_pad_crop(settings.PadCrop(pad=1, fill=0), CONTEXT),
        picture(),
        generator(),
    )
    seen = set()
    for _ in range(200):
        result = crop(source, dice)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                expected = torch.zeros_like(source)
                for y in range(13):
                    for x in range(7):
                        if 0 <= y - down < 13 and 0 <= x - right < 7:
                            expected[:, y, x] = source[:, y - down, x - right]
                if torch.equal(result, expected):
                    seen.add((down, right))
                    break
            else:
                continue
            break
        else:
            pytest.fail("the result is no shifted picture")
    assert len(seen) == 9


def test_what_is_drawn_stays_the_same():
    """A picture's numbers are part of a run: a flip draws one, compared in float32, a crop two
    integers at once, erasing one and then for each attempt two of float64 and the corner."""
    source = picture()
    for seed in range(300):
        ours, dice = generator(seed), generator(seed)
        flipped = build_flip(settings.Flip(p=0.3), CONTEXT)(source, ours)
        mirror = bool(torch.rand((), generator=dice) < 0.3)
        assert torch.equal(flipped, source.flip(2) if mirror else source)

        cropped = build_pad_crop(settings.PadCrop(pad=9, fill=7), CONTEXT)(source, ours)
        top, left = torch.randint(19, (2,), generator=dice).tolist()
        padded = torch.nn.functional.pad(source, (9, 9, 9, 9), value=7)
        assert torch.equal(cropped, padded[:, top : top + 13, left : left + 7])

        config = settings.Erase(p=1, area=(0.1, 0.1), aspect=1, fill=0)
        erased = build_erase(config, CONTEXT)(source, ours)
        torch.rand((), generator=dice)
        torch.rand(2, generator=dice, dtype=torch.float64)
        top, left = (int(torch.randint(size - 2, (), generator=dice)) for size in (13, 7))
        expected = source.clone()
        expected[:, top : top + 3, left : left + 3] = 0
        assert torch.equal(erased, expected)
        assert torch.equal(ours.get_state(), dice.get_state())


def box_of(changed: torch.Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the rectangle where [H, W] is true; it must be full."""
    rows, columns = (changed.any(axis).nonzero()[:, 0] for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    assert bool(changed[top : top + height, left : left + width].all())
    return top, left, height, width


def erased_boxes(config: settings.Erase, height: int, width: int, count: int) -> list[tuple]:
    """What is erased of a white picture."""
    erase, dice = build_erase(config, CONTEXT), generator(1)
    white = torch.full((3, height, width), 255, dtype=torch.uint8)
    results = [erase(white, dice) for _ in range(count)]
    return [box_of((r != white).all(0)) for r in results if not torch.equal(r, white)]


def test_erased_rectangles_keep_area_and_aspect():
    """Area and aspect are within their bounds but for rounding, and uniform: both halves of either
    range are drawn equally often where every rectangle fits."""
    config = settings.Erase(p=1, area=(0.02, 0.2), aspect=0.5, fill=0)
    boxes = erased_boxes(config, 200, 200, 1500)
    assert len(boxes) == 1500
    areas = np.array([h * w / 200**2 for _, _, h, w in boxes])
    aspects = np.array([h / w for _, _, h, w in boxes])
    # Sides of at least 20 px are rounded by up to half a pixel.
    assert areas.min() >= 0.02 * 0.95 and areas.max() <= 0.2 * 1.02
    assert aspects.min() >= 0.5 * 0.97 and aspects.max() <= 2 * 1.03
    assert abs((areas < 0.11).mean() - 0.5) < 0.05
    assert abs((aspects < 1.25).mean() - 0.5) < 0.05


def test_erased_rectangles_lie_inside_and_reach_every_border():
    """Each rectangle is smaller than the picture in both axes and may touch any of its sides."""
    boxes = erased_boxes(settings.Erase(p=1, fill=0), 16, 8, 1500)
    assert len(boxes) > 1490
    assert all(h < 16 and w < 8 for _, _, h, w in boxes)
    assert {0, 1} <= {top for top, _, _, _ in boxes} and {0, 1} <= {box[1] for box in boxes}
    assert max(top + h for top, _, h, _ in boxes) == 16
    assert max(left + w for _, left, _, w in boxes) == 8


def test_erase_gives_up_where_nothing_fits():
    """A rectangle that cannot fit in any attempt leaves the picture as it is."""
    assert erased_boxes(settings.Erase(p=1, area=(1, 1), aspect=1, attempts=3), 9, 9, 20) == []


def test_erase_fills_as_told():
    """The mean is 0 after normalisation to within rounding, values are taken as they are, and
    random fill differs from pixel to pixel and covers the range evenly."""
    source = torch.zeros(3, 64, 64, dtype=torch.uint8)

    def erased(fill: object) -> torch.Tensor:
        config = settings.Erase(p=1, area=(0.3, 0.3), aspect=1, fill=fill)
        result = build_erase(config, CONTEXT)(source, generator())
        inside = result[:, (result != 0).any(0)]
        assert inside.shape[1] >= 0.99 * 35**2
        return inside

    assert (erased(7) == 7).all()
    assert (erased((1, 2, 3)) == torch.tensor([[1], [2], [3]])).all()
    normal = normalized(erased("mean")[None, :, :, None], "imagenet")
    assert float(normal.abs().max()) <= 0.5 / 255 / min(IMAGENET_PIXELS.deviation) + 1e-6
    noise = erased("random").double()
    assert abs(noise.mean() - 127.5) < 5 and abs(noise.std() - 73.9) < 3
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.15
    assert abs(np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fill": "men"}, "mean"),
        ({"fill": 256}, "at most 255"),
        ({"fill": [1, 2]}, "list of 3"),
        ({"area": [0.4, 0.02]}, "smaller number first"),
        ({"aspect": 0}, "above 0"),
    ],
)
def test_erase_refuses_what_it_cannot_do(table, message):
    """Wrong settings are refused with what would fit."""
    config, faults = structure(settings.Erase, table)
    assert config is None and message in faults[0].text
    assert faults[0].path == tuple(table)


@pytest.mark.oracle
def test_occluded_boxes_equal_the_published():
    """With the published source of integers, every box is that of the published code."""
    with oracle("qaconv/random_occlusion_boxes") as vectors:
        draw = np.random.RandomState(int(vectors.input("numpy_seed"))).randint
        width = int(vectors.number("boxes", r"image (\d+) wide"))
        height = int(vectors.number("boxes", r"(\d+) high"))
        sizes = re.search(r"min_size=([\d.]+), max_size=([\d.]+)", vectors.sidecar["semantics"])
        smallest, area = map(float, sizes.groups())
        boxes = []
        for _ in vectors.arrays["boxes"]:
            left, top, side = occlusion_box(height, width, smallest, area, draw)
            boxes.append((left, top, side, side))
        vectors.compare("boxes", np.array(boxes))


@pytest.mark.parametrize(("height", "width"), [(24, 10), (10, 24), (8, 8)])
def test_occlusion_is_a_square_of_every_allowed_side_and_place(height, width):
    """Sides and places are those of the specification, all of them and no other, whichever axis is
    shorter; the last row and column are never covered."""
    occlude = build_occlude(settings.Occlude(area=0.5, smallest=0.2), CONTEXT)
    dice, black = generator(), torch.zeros(3, height, width, dtype=torch.uint8)
    shorter = min(height, width)
    sides = range(max(1, int(shorter * 0.2)), int(shorter * 0.5))
    seen = set()
    for _ in range(4000):
        result = occlude(black, dice)
        assert set(result.unique().tolist()) == {0, 255}
        top, left, tall, wide = box_of((result == 255).all(0))
        assert tall == wide
        seen.add((tall, top, left))
    assert {side for side, _, _ in seen} == set(sides)
    for side in sides:
        assert {top for s, top, _ in seen if s == side} == set(range(height - side))
        assert {left for s, _, left in seen if s == side} == set(range(width - side))


def test_occlusion_of_tiny_pictures_is_a_pixel():
    """Where no side is both a pixel and below the largest, the square is one pixel."""
    occlude = build_occlude(settings.Occlude(area=0.1), CONTEXT)
    result = occlude(torch.zeros(3, 8, 8, dtype=torch.uint8), generator())
    assert int((result == 255).sum()) == 3


def test_occlusion_refuses_a_smallest_side_above_the_largest():
    """`smallest` above `area` is refused by name, unless no square is drawn."""
    _, faults = structure(settings.Occlude, {"area": 0.2, "smallest": 0.3})
    assert [(f.path, f.text) for f in faults] == [
        (("smallest",), "expected at most area = 0.2, got 0.3")
    ]
    assert settings.Occlude(area=0, smallest=0.3).area == 0


def naive(pixel: list[float], kind: str, amount: float, mean: float) -> list[float]:
    """One pixel's change by definition, in float64."""
    grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    if kind == "hue":
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return list(colorsys.hsv_to_rgb((hue + amount) % 1, saturation, value))
    base = {"brightness": 0.0, "contrast": mean, "saturation": grey}[kind]
    return [min(1.0, max(0.0, amount * x + (1 - amount) * base)) for x in pixel]


@pytest.mark.parametrize(
    ("kind", "change", "amounts"),
    [
        ("brightness", with_brightness, (0.0, 0.6, 1.0, 1.7)),
        ("contrast", with_contrast, (0.0, 0.5, 1.0, 2.5)),
        ("saturation", with_saturation, (0.0, 0.5, 1.0, 3.0)),
        ("hue", with_hue, (-0.5, -0.3, -0.01, 0.0, 0.2, 0.5)),
    ],
)
def test_colour_changes_equal_their_definition(kind, change, amounts):
    """Each change equals a naive loop over pixels, colours on all edges of the cube included."""
    corners = itertools.product([0.0, 1 / 3, 2 / 3, 1.0], repeat=3)
    pixels = torch.tensor(list(corners), dtype=torch.float64).T.reshape(3, 8, 8).clone()
    pixels[2] **= 2  # so that the mean brightness is not the mean of all values
    colours = pixels.flatten(1).T.tolist()
    mean = sum(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in colours) / 64
    for amount in amounts:
        found = change(pixels, amount).flatten(1).T.tolist()
        for row, pixel in zip(found, colours, strict=True):
            assert row == pytest.approx(naive(pixel, kind, amount, mean), abs=1e-9)


def test_jitter_draws_its_factors_from_their_ranges():
    """Brightness alone: the factor is uniform from 1 - b to 1 + b; from 0, if b is above 1."""
    source = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    for strength, low, high in ((0.4, 60, 140), (1.5, 0, 250)):
        config = settings.Jitter(p=1, brightness=strength, contrast=0, saturation=0, hue=0)
        jitter, dice = build_jitter(config, CONTEXT), generator()
        levels = np.array([int(jitter(source, dice)[0, 0, 0]) for _ in range(600)])
        assert low <= levels.min() <= low + 3 and high - 3 <= levels.max() <= high
        assert abs((levels < (low + high) / 2).mean() - 0.5) < 0.08


def test_jitter_changes_in_every_order():
    """Brightness and contrast of a picture that clips: both orders occur, each with its result."""
    source = torch.tensor([0, 80, 160, 240], dtype=torch.uint8).repeat(3, 2, 1)
    config = settings.Jitter(p=1, brightness=0.9, contrast=0.9, saturation=0, hue=0)
    jitter = build_jitter(config, CONTEXT)
    pixels, counts = source.double() / 255, [0, 0]
    for seed in range(60):
        result = jitter(source, generator(seed))
        dice = generator(seed)
        torch.rand((), generator=dice)
        torch.randperm(4, generator=dice)
        one, two = (0.1 + 1.8 * torch.rand(4, generator=dice).double())[:2].tolist()
        orders = [
            with_contrast(with_brightness(pixels, one), two),
            with_brightness(with_contrast(pixels, two), one),
        ]
        fits = [float((255 * o - result).abs().max()) <= 0.501 for o in orders]
        assert any(fits)
        counts = [count + (fit and not all(fits)) for count, fit in zip(counts, fits, strict=True)]
    assert min(counts) >= 10


def test_grey_pictures_show_the_brightness():
    """All three channels are the weighted mean of ITU-R BT.601, rounded."""
    source = picture()
    result = build_grey(settings.Grey(p=1), CONTEXT)(source, generator())
    red, green, blue = source.double()
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    assert float((result.double() - expected).abs().max()) <= 0.5 + 1e-4
    assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])


def test_grey_of_a_channel_shows_each_channel_as_often():
    """All three channels are one of the picture's own, bit by bit; which one is drawn anew each
    time. Shown in grey again, by brightness, it stays as it is but for rounding."""
    source, dice = picture(), generator()
    augment = build_grey(settings.Grey(p=1, of="channel"), CONTEXT)
    counts = [0, 0, 0]
    for _ in range(300):
        result = augment(source, dice)
        (which,) = (c for c in range(3) if torch.equal(result, source[c].expand(3, -1, -1)))
        counts[which] += 1
    assert all(70 <= count <= 130 for count in counts)
    again = build_grey(settings.Grey(p=1), CONTEXT)(result, dice)
    assert float((again.double() - result.double()).abs().max()) <= 1
    result.zero_()
    assert source.any()


def images(height: int, width: int) -> Images:
    pixels = torch.rand(2, 3, height, width, generator=generator(), dtype=torch.float64)
    return Images(pixels, torch.tensor([0, 1]), torch.tensor([3, -1]))


def naive_zoom(pixels: torch.Tensor) -> torch.Tensor:
    """The middle 7/8, bilinear, pixel centres at half integers, in loops."""
    height, width = pixels.shape[-2:]
    tall, wide = 7 * height // 8, 7 * width // 8
    top, left = (height - tall) // 2, (width - wide) // 2
    result = torch.empty_like(pixels)
    for y, x in itertools.product(range(height), range(width)):
        down = min(max((y + 0.5) * tall / height - 0.5, 0), tall - 1)
        right = min(max((x + 0.5) * wide / width - 0.5, 0), wide - 1)
        result[..., y, x] = 0
        for row in {int(down), min(int(down) + 1, tall - 1)}:
            for column in {int(right), min(int(right) + 1, wide - 1)}:
                share = (1 - abs(down - row)) * (1 - abs(right - column))
                result[..., y, x] += share * pixels[..., top + row, left + column]
    return result


@pytest.mark.parametrize(("height", "width"), [(16, 12), (8, 8), (13, 27)])
def test_zoom_enlarges_the_middle(height, width):
    """Zoom is the middle 7/8, enlarged bilinearly; zoom_flip is that, mirrored."""
    given = images(height, width)
    zoomed = view_of(given, "zoom").pixels
    torch.testing.assert_close(zoomed, naive_zoom(given.pixels), rtol=0, atol=1e-12)
    assert torch.equal(view_of(given, "zoom_flip").pixels, zoomed.flip(-1))


def test_views_keep_what_is_known_of_the_pictures():
    """Modality, camera, size and type are kept; plain is the picture; a flip undoes a flip; a
    picture of one colour looks the same in every view."""
    given = images(16, 8)
    flat = Images(torch.full((2, 3, 16, 8), 0.3), given.modality, given.camera)
    for view in ("plain", "flip", "zoom", "zoom_flip"):
        seen = view_of(given, view)
        assert torch.equal(seen.modality, given.modality)
        assert torch.equal(seen.camera, given.camera)
        assert seen.pixels.shape == given.pixels.shape and seen.pixels.dtype == given.pixels.dtype
        torch.testing.assert_close(view_of(flat, view).pixels, flat.pixels)
    assert torch.equal(view_of(given, "plain").pixels, given.pixels)
    assert not torch.equal(view_of(given, "flip").pixels, given.pixels)
    assert torch.equal(view_of(view_of(given, "flip"), "flip").pixels, given.pixels)


class Vector(Matcher):
    """Keeps a feature as it is."""

    def template(self, features):
        return {"vector": features["x.x"]}


def test_the_order_of_views_does_not_matter():
    """The merged template is the mean over the views, in whatever order they are named."""
    given, weight = images(16, 8), torch.rand(384, 5, generator=generator(3), dtype=torch.float64)
    views = ("plain", "flip", "zoom", "zoom_flip")
    seen = {view: view_of(given, view).pixels.flatten(1) @ weight for view in views}
    matcher = Vector()
    merged = [
        matcher.merge([matcher.template({"x.x": seen[view]}) for view in order])["vector"]
        for order in itertools.permutations(views)
    ]
    for one in merged:
        torch.testing.assert_close(one, torch.stack(list(seen.values())).mean(0))
