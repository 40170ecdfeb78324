"""Articulated human figures, painted with shaded, textured tubes.

A figure is a set of tubes (limbs, trunk, head, bags) placed by a small skeleton. Every tube
has a round cross-section and carries a texture over (position along it, angle around the
body): a print on the chest is seen from the front only, a backpack from behind.

Lengths of the skeleton are fractions of the body height: x to the person's right, y up from
the ground, z forward. Canvases are `uint8` arrays (rows, columns, 4) with the channels of
the textures: red, green, blue and near infrared.

Pixels depend on random integers, on IEEE additions, products and square roots and on small
tables, never on vectorised transcendental functions: those differ between processors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from reidcore.builtin.drawn_people.wardrobe import LIMB_ROWS, TEXTURE_COLUMNS, Person, soft_noise

_LEVELS = 64
"""Resolution of the tables across a tube."""

_STEPS = 192
"""Resolution of the tables along a tube."""


@dataclass(frozen=True)
class Pose:
    """One moment of a walk as seen by one camera; angles are in radians."""

    phase: float
    stride: float
    heading: float  # 0 towards the camera, pi / 2 to the right of the picture
    pitch: float  # how far the camera looks down
    arms: str
    folds: int  # which cloth folds are seen


@cache
def _angles() -> np.ndarray:
    """Return the angle around the tube, in texture columns, for each level across it."""
    turns = [math.asin((2 * i + 1) / _LEVELS - 1) / math.tau for i in range(_LEVELS)]
    return np.array([round(TEXTURE_COLUMNS * turn) for turn in turns])


@dataclass(frozen=True)
class Light:
    """Light that falls on a tube: from the side (-1 left .. 1 right) over an ambient share."""

    side: float
    ambient: float  # 0..1

    def table(self) -> np.ndarray:
        """Return the brightness in 1/256 for each level across a tube."""
        across = [(2 * i + 1) / _LEVELS - 1 for i in range(_LEVELS)]
        facing = [max(0.0, self.side * u + math.sqrt(1 - u * u)) for u in across]
        norm = math.sqrt(1 + self.side * self.side)
        lit = [self.ambient + (1 - self.ambient) * f / norm for f in facing]
        return np.array([round(256 * part) for part in lit], dtype=np.int32)


@dataclass(frozen=True)
class Tube:
    """A textured tube in the picture; its ends are half ellipses.

    Attributes:
        start: Pixel (x, y) of one end.
        end: Pixel of the other end.
        radii: Radii in pixels, spaced evenly along the tube.
        texture: Texture along and around the tube.
        folds: Map of soft noise that darkens the cloth; None for none.
        cap: Flatness of the ends: 1 for half circles, more for flatter ones.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    radii: Sequence[float]
    texture: np.ndarray
    folds: np.ndarray | None = None
    cap: float = 1.0


def draw_tube(canvas: np.ndarray, tube: Tube, lit: np.ndarray, turn: float = 0.0) -> None:
    """Paint a tube over the canvas.

    `lit` is a table of `Light`, `turn` (radians) the direction of the texture's front.
    """
    start, end, radii, texture, cap = tube.start, tube.end, tube.radii, tube.texture, tube.cap
    height, width, _ = canvas.shape
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.sqrt(dx * dx + dy * dy), 1e-3)
    dx, dy = dx / length, dy / length
    reach = max(radii) * 1.2 + 1
    ahead = reach / cap
    reach_x = abs(dy) * reach + abs(dx) * ahead
    reach_y = abs(dx) * reach + abs(dy) * ahead
    left = max(int(min(start[0], end[0]) - reach_x), 0)
    right = min(int(max(start[0], end[0]) + reach_x) + 1, width)
    top = max(int(min(start[1], end[1]) - reach_y), 0)
    bottom = min(int(max(start[1], end[1]) + reach_y) + 1, height)
    if left >= right or top >= bottom:
        return
    # All that depends on the place along the axis alone comes from tables over `_STEPS` steps.
    margin = ahead / length
    place = np.arange(_STEPS) * ((1 + 2 * margin) / _STEPS) - margin
    inner = place.clip(0, 1)
    nodes = len(radii) - 1
    node = np.minimum((inner * nodes).astype(np.int64), nodes - 1)
    heights = np.array(radii)
    radius = heights[node] + (heights[node + 1] - heights[node]) * (inner * nodes - node)
    beyond = (place - inner) * (length * cap)
    room = (radius * radius - beyond * beyond).astype(np.float32)
    rows = (inner * (len(texture) - 0.01)).astype(np.int64) * TEXTURE_COLUMNS
    fold_rows = (inner * 63).astype(np.int64) * TEXTURE_COLUMNS

    x = np.arange(left, right) - start[0]
    y = np.arange(top, bottom) - start[1]
    # The sign makes the right of the picture the positive side of a tube that points down.
    across = (y * -dx).astype(np.float32)[:, None] + (x * dy).astype(np.float32)[None, :]
    scale = _STEPS / (length + 2 * ahead)
    step = (y * (dy * scale) + ahead * scale).astype(np.float32)[:, None]
    step = (step + (x * (dx * scale)).astype(np.float32)[None, :]).astype(np.intp)
    # A faint dark rim, a little wider than the tube, sets it off from what lies behind it.
    spot = np.flatnonzero(across * across < room.take(step, mode="clip") * np.float32(1.35))
    step = step.ravel().take(spot).clip(0, _STEPS - 1)
    across = across.ravel().take(spot)
    pixel = (np.arange(top, bottom) * width)[:, None] + np.arange(left, right)[None, :]
    pixel = pixel.ravel().take(spot)
    flat = canvas.view(np.uint32).reshape(-1)
    inside = across * across < room.take(step)
    rim = pixel[~inside]
    # A pixel's four bytes travel as one number: that is far faster.
    behind = flat.take(rim).view(np.uint8) // 4 * 3
    flat[rim] = behind.view(np.uint32)
    pixel, step, across = pixel[inside], step[inside], across[inside]

    level = across * (_LEVELS / 2 / radius).astype(np.float32).take(step) + _LEVELS // 2
    level = level.astype(np.intp)
    shift = TEXTURE_COLUMNS // 2 - round(turn / math.tau * TEXTURE_COLUMNS)
    column = ((_angles() + shift) % TEXTURE_COLUMNS).take(level, mode="clip")
    colour = texture.view(np.uint32).take(rows.take(step) + column).view(np.uint8).reshape(-1, 4)
    bright = lit.take(level, mode="clip")
    if tube.folds is not None:
        bright = bright * tube.folds.take(fold_rows.take(step) + column) >> 8
    # Halved, the brightness of at most 290 / 256 leaves the product within 16 bits.
    product = colour * (bright >> 1).astype(np.uint16)[:, None] >> 7
    flat[pixel] = np.minimum(product, 255).astype(np.uint8).view(np.uint32).ravel()


@cache
def _folds(seed: int) -> np.ndarray:
    """Return one of a few maps of cloth folds: brightness in 1/256, about 170..290."""
    coarse = soft_noise(64, TEXTURE_COLUMNS, 12, seed % 12).astype(np.int32)
    fine = soft_noise(64, TEXTURE_COLUMNS, 5, seed % 7).astype(np.int32)
    return 290 - (coarse + fine) * 4 // 16


class _Skeleton:
    """Joints of a person in a pose, with their place in the picture."""

    def __init__(self, person: Person, pose: Pose, feet: tuple[float, float], height: float):
        self.feet, self.height = feet, height
        self.cos, self.sin = math.cos(pose.heading), math.sin(pose.heading)
        self.tilt, self.rise = math.sin(pose.pitch), math.cos(pose.pitch)
        hip = person.legs
        thigh = shin = (hip - 0.045) / 2
        swing = 0.36 * pose.stride * person.gait
        self.legs, self.arms = {}, {}
        for side in (-1, 1):
            turn = pose.phase + (math.pi if side < 0 else 0.0)
            fore = swing * math.sin(turn)
            bend = 0.1 + 1.1 * swing * max(0.0, math.cos(turn))
            a = (side * 0.05 * person.build, hip, 0.0)
            b = (a[0], hip - thigh * math.cos(fore), thigh * math.sin(fore))
            back = fore - bend
            c = (a[0] * 0.9, b[1] - shin * math.cos(back), b[2] + shin * math.sin(back))
            toe = (c[0] * 1.2, c[1] - 0.02 - 0.25 * bend * 0.06, c[2] + 0.095)
            self.legs[side] = [a, b, c, toe]
        self.drop = min(leg[2][1] for leg in self.legs.values()) - 0.03
        for side in (-1, 1):
            turn = pose.phase + (math.pi if side > 0 else 0.0)
            fore, bend, out = 0.9 * swing * math.sin(turn), 0.25 + 0.5 * swing, 0.16
            if pose.arms == "phone" and side == person.bag_side:
                fore, bend = 0.25, 2.1
            elif pose.arms == "pockets":
                fore, bend, out = -0.2, 0.65, 0.3
            elif person.bag in ("hand", "case") and side == person.bag_side:
                fore, bend, out = -0.1 if person.bag == "case" else fore / 3, 0.08, 0.14
            wide = 0.108 * person.build * person.shoulders
            a = (side * wide, 0.805, 0.0)
            b = (
                a[0] + side * 0.165 * math.sin(out),
                0.805 - 0.165 * math.cos(fore),
                0.165 * math.sin(fore),
            )
            inward = side * (0.04 if pose.arms == "pockets" else 0.0)
            c = (
                b[0] - inward,
                b[1] - 0.15 * math.cos(fore + bend),
                b[2] + 0.15 * math.sin(fore + bend),
            )
            self.arms[side] = [a, b, c]

    def place(self, joint: tuple[float, float, float]) -> tuple[float, float]:
        """Return the pixel (x, y) of a joint."""
        x, y, z = joint
        y -= self.drop
        near = 1 + 0.35 * self.tilt * (y - 0.5)
        aside = -x * self.cos + z * self.sin
        up = y * self.rise - self.depth(joint) * self.tilt
        return (self.feet[0] + aside * self.height * near, self.feet[1] - up * self.height)

    def depth(self, joint: tuple[float, float, float]) -> float:
        """Return how far a joint lies towards the camera."""
        return joint[0] * self.sin + joint[2] * self.cos

    def girth(self, wide: float, deep: float) -> float:
        """Return the half width seen of a body that is `wide` across and `deep` through."""
        return math.sqrt((wide * self.cos) ** 2 + (deep * self.sin) ** 2)


def draw_person(
    canvas: np.ndarray,
    person: Person,
    pose: Pose,
    feet: tuple[float, float],
    height: float,
    light: Light,
) -> None:
    """Paint a person who stands at pixel `feet` (x, y) and is `height` pixels tall."""
    bones = _Skeleton(person, pose, feet, height)
    lit = light.table()
    tubes: list[tuple[float, int, Tube]] = []

    def add(
        depth: float,
        start: Any,
        end: Any,
        radii: Any,
        texture: np.ndarray,
        fold: int | None = None,
        cap: float = 1.0,
    ) -> None:
        folds = None if fold is None else _folds((pose.folds + fold) % 84)
        pixels = [max(radius * height, 0.7) for radius in radii]
        tube = Tube(bones.place(start), bones.place(end), pixels, texture, folds, cap)
        # The counter keeps the order of equal depths and spares comparing arrays.
        tubes.append((depth, len(tubes), tube))

    build = person.build
    half = LIMB_ROWS // 2
    for side, (hip, knee, ankle, toe) in bones.legs.items():
        depth = -0.5 + bones.depth(knee) + 0.4 * bones.depth(ankle)
        heel = (ankle[0], ankle[1] - 0.012, ankle[2] - 0.02)
        wide = 0.5 * build + 0.5
        cut = person.leg_width
        shin = (0.036, 0.039, 0.022) if person.bare_shins else (0.04 * cut, 0.04 * cut, 0.034 * cut)
        add(depth - 0.001, heel, toe, (0.024, 0.026, 0.018), person.shoe)
        add(depth, knee, ankle, [r * wide for r in shin], person.leg[half:], side + 3)
        thigh = (0.062, 0.056, 0.043 * max(cut, 1.0))
        add(depth + 0.001, hip, knee, [r * wide for r in thigh], person.leg[:half], side + 4)

    for side, (shoulder, elbow, wrist) in bones.arms.items():
        depth = bones.depth(elbow) + 0.5 * bones.depth(wrist) + 0.06
        thick = 0.6 + 0.4 * build
        palm = tuple(w + 0.25 * (w - e) for w, e in zip(wrist, elbow, strict=True))
        add(depth - 0.002, wrist, palm, (0.019, 0.021, 0.014), person.skin)
        fore = [r * thick for r in (0.029, 0.029, 0.022)]
        add(depth - 0.001, elbow, wrist, fore, person.arm[half:], side + 5)
        upper = [r * thick for r in (0.036, 0.037, 0.031)]
        add(depth, shoulder, elbow, upper, person.arm[:half], side + 6)
        if side == person.bag_side and person.bag == "hand":
            low = (wrist[0], wrist[1] - 0.16 * person.bag_size, wrist[2])
            high = (wrist[0], wrist[1] - 0.06, wrist[2])
            size = bones.girth(0.04, 0.085) * person.bag_size
            add(depth - 0.003, wrist, high, (0.012, 0.03), person.bag_cloth[:2])
            add(depth - 0.004, high, low, (size * 0.8, size, size), person.bag_cloth, 4, 3.0)

    if person.hem:
        wide = 0.106 * build
        parts = (1.0, 1.08, 0.4 + person.flare * 0.72)
        hem = [bones.girth(wide * part, 0.8 * wide * part) for part in parts]
        add(-0.2, (0.0, 0.6, 0.0), (0.0, person.hem, 0.0), hem, person.skirt, 7, 9.0)
    wide = 0.118 * build
    outline = (0.5, 0.93 * person.shoulders, person.shoulders, 0.97, 0.9, 0.86, 0.88, 0.93, 0.92)
    trunk = [bones.girth(part * wide, 0.072 * build * (0.7 + 0.3 * part)) for part in outline]
    add(0.0, (0.0, 0.845, 0.0), (0.0, 0.51, 0.0), trunk, person.trunk, 1, 2.2)

    if person.bag == "backpack":
        middle, size = -0.1 * build, person.bag_size
        pack = [bones.girth(0.085, 0.055) * size * part for part in (0.75, 1.0, 1.05, 1.0)]
        high, low = (0.0, 0.78, middle), (0.0, 0.78 - 0.2 * size, middle)
        add(0.12 if bones.cos < 0.1 else -0.12, high, low, pack, person.bag_cloth, 2, 2.0)
    elif person.bag == "shoulder":
        beside = person.bag_side * (0.12 * build + 0.03)
        pouch = [bones.girth(0.045, 0.09) * person.bag_size * part for part in (0.9, 1.0, 1.0)]
        ends = (beside, 0.55, -0.02), (beside, 0.55 - 0.11 * person.bag_size, -0.02)
        add(bones.depth(ends[0]) * 1.5 + 0.03, *ends, pouch, person.bag_cloth, 5, 4.0)
    elif person.bag == "case":
        beside = person.bag_side * 0.2
        box = [bones.girth(0.085, 0.055) * person.bag_size * part for part in (0.95, 1.0, 1.0)]
        high = (beside, 0.27 * person.bag_size + bones.drop, -0.16)
        ends = high, (beside, 0.04 + bones.drop, -0.16)
        add(bones.depth(ends[0]) - 0.3, *ends, box, person.bag_cloth, None, 6.0)
        grip = bones.arms[person.bag_side][2]
        add(bones.depth(ends[0]) - 0.31, grip, ends[0], (0.008, 0.008), person.shoe)

    lean = 0.02  # the head sits a little before the spine
    if person.long_hair:
        behind = 0.05 if bones.cos < 0.2 else -0.05
        locks = (0.062, 0.066, 0.05)
        add(behind, (0.0, 0.93, -0.025), (0.0, 0.8, -0.055), locks, person.hair, 8)
    add(-0.01, (0.0, 0.9, 0.0), (0.0, 0.83, 0.0), (0.036, 0.042), person.skin)
    head = [bones.girth(0.056, 0.064) * part for part in (0.92, 1.06, 1.0, 0.82)]
    add(0.2, (0.0, 0.965, lean), (0.0, 0.898, lean), head, person.head)
    if person.hat == "hood":
        hood = (0.07, 0.078, 0.075)
        add(0.19, (0.0, 0.965, -0.01), (0.0, 0.87, -0.02), hood, person.hat_cloth, 2)
    elif person.hat != "none":
        top = [part * 1.1 for part in head]
        add(0.21, (0.0, 0.972, lean), (0.0, 0.95, lean), top[:2], person.hat_cloth, 2)
        if person.hat == "cap":
            peak = ((0.0, 0.952, lean + 0.03), (0.0, 0.945, lean + 0.105))
            add(0.22 if bones.cos > -0.2 else 0.18, *peak, (0.045, 0.03), person.hat_cloth)

    for _, _, tube in sorted(tubes, key=lambda one: one[:2]):
        draw_tube(canvas, tube, lit, pose.heading)
