"""People of the demo: bodies, garments and bags.

A garment is a texture, a `uint8` array (rows along the body part, columns once around it, 4)
with red, green, blue and near-infrared reflectance. The middle column faces forward.

In near infrared a garment is as bright as its cloth and its colour's lightness make it, half and
half; the hue shows in nothing. So black on white stays a pattern, red on green of one lightness
vanishes, and a black jacket may be as bright as a white one. Skin is always bright, hair dark.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[int, int, int, int]
"""Red, green, blue and near-infrared reflectance, each 0..255."""

TEXTURE_COLUMNS = 96
"""Columns of a texture, once around the body."""

TRUNK_ROWS = 72
"""Rows of a trunk's texture."""

LIMB_ROWS = 96
"""Rows of a limb's texture: the upper segment's, then as many of the lower segment's."""

# Weight, hue range (degrees), saturation range and value range (percent) of garment dyes.
_DYES = (
    (9, (0, 360), (0, 12), (8, 20)),
    (7, (0, 360), (0, 8), (35, 62)),
    (8, (0, 360), (0, 8), (85, 98)),
    (8, (208, 232), (45, 80), (22, 45)),
    (5, (195, 220), (40, 75), (55, 85)),
    (8, (352, 366), (70, 92), (50, 85)),
    (5, (95, 160), (40, 80), (28, 65)),
    (5, (42, 56), (60, 90), (75, 95)),
    (4, (18, 32), (65, 92), (65, 92)),
    (5, (28, 42), (25, 45), (55, 85)),
    (3, (18, 30), (45, 65), (22, 38)),
    (4, (270, 330), (30, 70), (40, 85)),
    (3, (165, 190), (40, 80), (40, 75)),
)
_SKINS = ((236, 196, 170), (220, 172, 140), (196, 146, 110), (150, 102, 70), (96, 64, 46))
_HAIRS = ((24, 20, 20), (44, 32, 26), (84, 56, 36), (150, 112, 66), (150, 148, 146), (110, 50, 28))
_LOWER_PATTERNS = ("plain", "plain", "plain", "plain", "side", "check", "stripes", "camouflage")
_UPPER_PATTERNS = (
    *("plain", "plain", "hoops", "hoops", "stripes", "check", "check", "dots", "camouflage"),
    *("block", "block", "sash", "print", "print", "print", "panel", "panel", "band", "side"),
)
_OUTFITS = (*("trousers",) * 7, *("shorts",) * 3, *("skirt",) * 2, "dress", "coat", "coat")
_BAGS = (*("none",) * 2, *("backpack",) * 2, *("shoulder",) * 2, "hand", "case")


def generator(*key: int) -> np.random.Generator:
    """Return a random generator that depends on nothing but the given non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a uniform random number between `low` and `high`."""
    return low + (high - low) * rng.random()


def pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """Return one of `items`, each equally likely."""
    return items[int(rng.integers(len(items)))]


@cache
def soft_noise(rows: int, columns: int, grid: int, seed: int) -> np.ndarray:
    """Return smooth noise (rows, columns), 0..255, with bumps about `grid` pixels wide."""
    shape = (max(rows // grid, 2), max(columns // grid, 2))
    coarse = generator(91, seed, rows, columns, grid).integers(0, 256, shape, dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    noise = np.asarray(smooth)
    noise.setflags(write=False)
    return noise


@dataclass(frozen=True)
class Person:
    """A person: all that stays the same over all pictures."""

    build: float  # width relative to the average body, about 0.8..1.3
    shoulders: float  # extra width of the shoulders relative to the hips
    legs: float  # share of the body height below the hips
    leg_width: float  # cut of the trousers relative to a slim cut
    bare_shins: bool
    hem: float  # y of the lower edge of a skirt, dress or coat; 0 without one
    flare: float
    bag: str
    bag_side: int  # 1 right, -1 left
    bag_size: float
    long_hair: bool
    hat: str
    gait: float  # length of the stride relative to the average
    trunk: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    skirt: np.ndarray
    head: np.ndarray
    hair: np.ndarray
    hat_cloth: np.ndarray
    shoe: np.ndarray
    skin: np.ndarray
    bag_cloth: np.ndarray


def lightness(colour: Sequence[int]) -> int:
    """Return the lightness, 0..255, of a colour that starts with red, green and blue."""
    return (2 * colour[0] + 5 * colour[1] + colour[2]) // 8


def dye(rng: np.random.Generator) -> Colour:
    """Draw a garment colour on a cloth of its own."""
    choice = int(rng.integers(sum(entry[0] for entry in _DYES)))
    number = 0
    while choice >= _DYES[number][0]:
        choice -= _DYES[number][0]
        number += 1
    _, hue, saturation, value = _DYES[number]
    shares = colorsys.hsv_to_rgb(
        between(rng, *hue) % 360 / 360,
        between(rng, *saturation) / 100,
        between(rng, *value) / 100,
    )
    red, green, blue = (int(255 * share) for share in shares)
    cloth = int(rng.integers(50, 235))
    return red, green, blue, (cloth + lightness((red, green, blue))) // 2


def second_dye(rng: np.random.Generator, first: Colour) -> Colour:
    """Draw a colour that stands out from `first`, more often than not on the same cloth."""
    for _ in range(20):
        colour = dye(rng)
        if sum(abs(a - b) for a, b in zip(colour[:3], first[:3], strict=True)) > 190:
            break
    infrared = colour[3]
    if rng.random() >= 0.4:
        lighter = lightness(colour) - lightness(first) + int(rng.integers(-25, 26))
        infrared = first[3] + lighter // 2
    return (*colour[:3], min(max(infrared, 20), 245))


def plain(colour: Colour, rows: int = 8) -> np.ndarray:
    """Return a texture of one colour."""
    return np.full((rows, TEXTURE_COLUMNS, 4), colour, dtype=np.uint8)


def _cloth(
    rng: np.random.Generator, pattern: str, colours: Sequence[Colour], rows: int
) -> np.ndarray:
    """Return a texture (rows, columns, 4) with three `colours` laid out by `pattern`."""
    texture = plain(colours[0], rows)
    row, column = np.arange(rows)[:, None], np.arange(TEXTURE_COLUMNS)[None, :]
    front = abs(column - TEXTURE_COLUMNS // 2)
    period = int(rng.integers(7, 17))
    share = int(rng.integers(2, 5))
    everywhere = np.ones((rows, TEXTURE_COLUMNS), dtype=bool)
    if pattern == "hoops":
        texture[everywhere & (row % period < period * share // 6)] = colours[1]
    elif pattern == "stripes":
        period = pick(rng, (6, 8, 12))
        texture[everywhere & (column % period < period // 2)] = colours[1]
    elif pattern == "check":
        period = pick(rng, (8, 12, 16))
        across = everywhere & (row % period < period // 2)
        along = everywhere & (column % period < period // 2)
        mixed = tuple((a + b) // 2 for a, b in zip(colours[0], colours[1], strict=True))
        texture[across ^ along] = mixed
        texture[across & along] = colours[1]
    elif pattern == "dots":
        period = pick(rng, (12, 16))
        shifted = column + (row // period % 2) * (period // 2)
        distance = (row % period - period // 2) ** 2 + (shifted % period - period // 2) ** 2
        texture[distance < period * period // 11] = colours[1]
    elif pattern == "camouflage":
        noise = soft_noise(rows, TEXTURE_COLUMNS, 9, int(rng.integers(1 << 16)))
        texture[noise > 140] = colours[1]
        texture[noise < 90] = colours[2]
    elif pattern == "block":
        edge = int(rows * between(rng, 0.25, 0.7))
        texture[edge:] = colours[1]
        if rng.random() < 0.5:
            texture[edge : edge + 5] = colours[2]
    elif pattern == "band":
        edge = int(rows * between(rng, 0.12, 0.6))
        texture[edge : edge + int(rng.integers(8, 18))] = colours[1]
    elif pattern == "sash":
        slope = pick(rng, (-1, 1))
        texture[everywhere & (abs(slope * (column - 48) - row + rows // 2) < period)] = colours[1]
    elif pattern == "panel":
        texture[everywhere & (front < int(rng.integers(5, 13)))] = colours[1]
    elif pattern == "side":
        texture[everywhere & (abs(column % 48 - 24) < 4)] = colours[1]
    elif pattern == "print":
        _add_print(rng, texture, colours, row, column)
    return texture


def _add_print(
    rng: np.random.Generator,
    texture: np.ndarray,
    colours: Sequence[Colour],
    row: np.ndarray,
    column: np.ndarray,
) -> None:
    """Put a motif of two colours on the chest and, for some people, on the back."""
    middle = int(len(texture) * between(rng, 0.28, 0.5))
    half = (int(rng.integers(7, 17)), int(rng.integers(7, 15)))
    motif, core = pick(rng, ("disc", "box", "diamond", "bars")), rng.random() < 0.6
    for centre in (48, 0) if rng.random() < 0.6 else (48,):
        aside = abs((column - centre + 48) % TEXTURE_COLUMNS - 48)
        down = abs(row - middle)
        if motif == "disc":
            measure = (down * 16 // half[0]) ** 2 + (aside * 16 // half[1]) ** 2
        elif motif == "diamond":
            measure = (down * 16 // half[0] + aside * 16 // half[1]) ** 2
        else:
            measure = np.maximum(down * 16 // half[0], aside * 16 // half[1]) ** 2
        inside = measure < 256
        if motif == "bars":
            inside &= down % 6 < 3
        texture[inside] = colours[1]
        if core:
            texture[measure < 64] = colours[2]


def _head(rng: np.random.Generator, skin: Colour, hair: Colour, style: str) -> np.ndarray:
    """Return the texture of a head: hair on top and behind, a face in front."""
    texture = plain(skin, 32)
    front = abs(np.arange(TEXTURE_COLUMNS) - TEXTURE_COLUMNS // 2)[None, :]
    row = np.arange(32)[:, None]
    if style != "bald":
        texture[(row < int(rng.integers(7, 12))) | ((front > 18) & (row < 26))] = hair
    shade = tuple(part * 5 // 10 for part in skin)
    texture[(abs(row - 15) < 2) & (abs(front - 7) < 3)] = shade
    texture[(abs(row - 25) < 1) & (front < 5)] = tuple(part * 7 // 10 for part in skin)
    if style == "beard":
        texture[(row > 21) & (front < 22)] = hair
    return texture


def make_person(rng: np.random.Generator) -> Person:
    """Draw a person: body, hair, garments and what is carried."""
    red, green, blue = (int(part + rng.integers(-8, 9)) for part in pick(rng, _SKINS))
    skin = (red, green, blue, int(rng.integers(165, 215)))
    hair = (*pick(rng, _HAIRS), int(rng.integers(60, 130)))
    upper, lower = dye(rng), dye(rng)
    accents = [second_dye(rng, upper) for _ in range(2)]
    pattern = pick(rng, _UPPER_PATTERNS)
    trunk = _cloth(rng, pattern, (upper, *accents), TRUNK_ROWS)
    trunk[:3, 30:67] = skin  # the neck opening
    kind = pick(rng, _OUTFITS)

    sleeve = pick(rng, (accents[0], upper, upper))
    repeats = pattern in ("hoops", "check", "camouflage", "dots", "stripes")
    arm = _cloth(rng, pattern if repeats else "plain", (sleeve, *accents), LIMB_ROWS)
    if rng.random() < 0.2:
        arm[10:24] = accents[1]
    reach = 96 if kind == "coat" else pick(rng, (96, 96, 96, 40, 34, 66, 8))
    arm[reach:] = skin

    lower_colours = (lower, second_dye(rng, lower), dye(rng))
    lower_pattern = pick(rng, _LOWER_PATTERNS)
    leg = _cloth(rng, lower_pattern, lower_colours, LIMB_ROWS)
    skirt, hem = _cloth(rng, lower_pattern, lower_colours, 48), 0.0
    bare = kind in ("shorts", "skirt", "dress") and (kind == "shorts" or rng.random() < 0.6)
    if kind == "shorts":
        leg[pick(rng, (30, 40, 48)) :] = skin
    elif bare:
        leg[:] = skin
    if kind in ("skirt", "dress", "coat"):
        hem = between(rng, 0.2, 0.4)
    if kind in ("dress", "coat"):
        skirt = trunk[24:]
    if bare and rng.random() < 0.4:
        leg[int(rng.integers(76, 90)) :] = accents[1]  # socks

    bag = pick(rng, _BAGS)
    bag_colour = dye(rng)
    bag_cloth = _cloth(
        rng,
        pick(rng, ("plain", "plain", "block", "band", "print")),
        (bag_colour, second_dye(rng, bag_colour), dye(rng)),
        40,
    )
    side = pick(rng, (-1, 1))
    column, row = np.arange(TEXTURE_COLUMNS)[None, :], np.arange(TRUNK_ROWS)[:, None]
    if bag == "backpack":
        straps = abs(abs(column - 48) - 12) < 3
        trunk[straps & (row < 46)] = bag_colour
    elif bag == "shoulder":
        along = (48 + side * (row - 34) * 2 // 3, 0 - side * (row - 34) * 2 // 3)
        for centre in along:
            trunk[abs((column - centre + 48) % TEXTURE_COLUMNS - 48) < 3] = bag_colour
    style = pick(rng, ("short", "short", "short", "bald", "beard", "short", "long", "long", "long"))
    return Person(
        build=between(rng, 0.8, 1.28),
        shoulders=between(rng, 0.9, 1.12),
        legs=between(rng, 0.49, 0.54),
        leg_width=pick(rng, (0.85, 0.95, 1.1, 1.3)),
        bare_shins=bare,
        hem=hem,
        flare=between(rng, 1.0, 1.6) if kind != "coat" else between(rng, 1.0, 1.2),
        bag=bag,
        bag_side=side,
        bag_size=between(rng, 0.8, 1.25),
        long_hair=style == "long",
        hat=pick(rng, ("none",) * 7 + ("cap", "beanie", "hood")),
        gait=between(rng, 0.75, 1.2),
        trunk=trunk,
        arm=arm,
        leg=leg,
        skirt=skirt,
        head=_head(rng, skin, hair, style),
        hair=plain(hair),
        hat_cloth=plain(pick(rng, (accents[0], dye(rng), upper))),
        shoe=plain(dye(rng)),
        skin=plain(skin),
        bag_cloth=bag_cloth,
    )
