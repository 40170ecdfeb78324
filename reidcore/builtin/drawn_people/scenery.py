"""Surroundings of the walkers of the demo: scenes, shadows and things that stand in the way."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reidcore.builtin.drawn_people.figures import Tube, draw_tube
from reidcore.builtin.drawn_people.wardrobe import between, pick, soft_noise

SCENE_SIZE = (900, 470)
"""Width and height of a scene in supersampled pixels."""


def make_scene(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Paint the view of a camera without people: a canvas (rows, columns, 4).

    `kind` is "street", "hall", "garden" or "brick".
    """
    width, height = SCENE_SIZE
    horizon = int(rng.integers(150, 250))
    walls = {"street": (168, 160, 150), "hall": (206, 200, 184), "garden": (70, 96, 52)}
    floors = {"street": (128, 128, 130), "hall": (176, 168, 156), "garden": (142, 132, 108)}

    def vary(colour: tuple[int, ...], spread: int = 18) -> tuple[int, ...]:
        offset = int(rng.integers(-spread, spread + 1))
        return tuple(int(part + offset + rng.integers(-6, 7)) for part in colour)

    image = Image.new("RGB", SCENE_SIZE, vary(walls.get(kind, (138, 84, 66))))
    draw = ImageDraw.Draw(image)
    floor = vary(floors.get(kind, (104, 106, 112)))
    draw.rectangle((0, horizon, width, height), fill=floor)
    joint = tuple(part * 8 // 10 for part in floor)
    if kind in ("street", "hall"):
        for i in range(1, 9):
            y = horizon + (height - horizon) * i * i // 64
            draw.line((0, y, width, y), fill=joint, width=1 + i // 3)
        for x in range(-width, 2 * width, 110):
            draw.line((width // 2 + (x - width // 2) // 3, horizon, x, height), fill=joint, width=2)
    if kind == "street":
        for x in range(int(rng.integers(60)), width, 130):
            pane = vary((70, 84, 98), 30)
            draw.rectangle((x, 12, x + 84, horizon - 40), fill=pane, outline=(60, 56, 52), width=5)
            draw.line((x + 42, 12, x + 42, horizon - 40), fill=(60, 56, 52), width=4)
        draw.rectangle((0, horizon, width, horizon + 12), fill=vary((182, 180, 174)))
    elif kind == "hall":
        for x in range(int(rng.integers(90)), width, 210):
            door = (x, 10, x + 86, horizon)
            draw.rectangle(door, fill=vary((122, 84, 58)), outline=(80, 62, 48))
            poster = tuple(int(part) for part in rng.integers(50, 230, 3))
            frame = (x + 120, 60, x + 172, 130)
            draw.rectangle(frame, fill=poster, outline=(240, 240, 236), width=4)
        draw.rectangle((0, horizon - 10, width, horizon), fill=vary((96, 92, 88)))
    elif kind == "brick":
        for row in range(0, horizon, 14):
            for x in range(-(row // 14 % 2) * 18, width, 36):
                draw.rectangle((x + 1, row + 1, x + 34, row + 12), fill=vary((150, 88, 68), 14))
        for x in range(int(rng.integers(150)), width, 300):
            draw.rectangle((x, 30, x + 120, horizon), fill=vary((104, 112, 116)))
            for y in range(38, horizon, 12):
                draw.line((x, y, x + 120, y), fill=(84, 90, 94), width=2)
        draw.line((0, height - 60, width, height - 74), fill=(206, 200, 172), width=9)
    else:
        for _ in range(320):
            x, y, r = (
                int(rng.integers(low, high))
                for low, high in ((0, width), (0, horizon + 20), (8, 38))
            )
            bush = (x - r, y - r * 3 // 4, x + r, y + r * 3 // 4)
            draw.ellipse(bush, fill=vary((58, 88, 40), 28))
        for x in range(int(rng.integers(120)), width, 240):
            draw.rectangle((x, 0, x + 26, horizon + 16), fill=vary((84, 66, 50)))
        draw.polygon(
            ((0, horizon + 24), (width, horizon + 8), (width, horizon + 60), (0, horizon + 50)),
            fill=vary((96, 122, 62)),
        )
    for _ in range(3):
        x, tint = int(rng.integers(width)), vary((90, 96, 100), 40)
        if rng.random() < 0.5:
            draw.rectangle((x, 0, x + 11, horizon + 40), fill=tint)
        else:
            draw.rectangle((x, horizon - 46, x + 46, horizon + 26), fill=tint)
            draw.rectangle((x - 3, horizon - 52, x + 49, horizon - 42), fill=vary((60, 62, 64)))
    # The lens is focused on the people.
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(2.5))).astype(np.int32)
    # Plants are bright in near infrared; the rest fades with the distance from the lamp.
    green = np.maximum(2 * pixels[..., 1] - pixels[..., 0] - pixels[..., 2], 0)
    infrared = (pixels[..., 0] * 6 // 10 + green * 2) * 7 // 10
    pixels = np.concatenate((pixels, infrared[..., None]), axis=-1)
    # Haze and a little dirt.
    pixels = (pixels * 3 + 110) // 4
    grain = soft_noise(height, width, 3, 1).astype(np.int32) + soft_noise(height, width, 60, 2)
    return np.clip(pixels * (204 + grain[..., None] * 52 // 255) >> 8, 0, 255).astype(np.uint8)


def cast_shadow(
    canvas: np.ndarray, x: float, y: float, wide: float, high: float, depth: float
) -> None:
    """Darken a soft ellipse of the ground; `depth` is the share of light lost at its centre."""
    rows, columns = canvas.shape[:2]
    top, bottom = max(int(y - high), 0), min(int(y + high), rows)
    left, right = max(int(x - wide), 0), min(int(x + wide), columns)
    if top >= bottom or left >= right:
        return
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)) / np.float32(high)
    aside = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)) / np.float32(wide)
    core = (1 - down * down - aside * aside).clip(0)
    area = canvas[top:bottom, left:right]
    area[:] = area * (1 - np.float32(depth) * core)[..., None]


def _coat(rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    """Return a one-colour texture, greyish, with its own infrared brightness."""
    grey = int(rng.integers(low, high))
    colour = [min(max(grey + int(rng.integers(-24, 25)), 0), 255) for _ in range(3)]
    texture = np.empty((8, 96, 4), dtype=np.uint8)
    texture[:] = (*colour, int(rng.integers(60, 180)))
    return texture


def occlude(canvas: np.ndarray, rng: np.random.Generator, lit: np.ndarray) -> None:
    """Put a pole, a car, a sign, a rail or a shrub in front of the person."""
    rows, columns = canvas.shape[:2]
    kind = pick(rng, ("pole", "car", "sign", "shrub", "rail"))
    x, side = between(rng, 0.15, 0.85) * columns, pick(rng, (-1, 1))
    if kind == "pole":
        thick = between(rng, 6, 17)
        foot = (x + between(rng, -9, 9), 400)
        draw_tube(canvas, Tube((x, -20), foot, (thick, thick), _coat(rng, 40, 190)), lit)
    elif kind == "car":
        level, body = between(rng, 0.78, 0.95) * rows, _coat(rng, 30, 220)
        # Around a lying tube the columns run from the roof down to the sill.
        body[:, 40:47] = _coat(rng, 25, 60)[0, 0]
        near = columns / 2 + side * between(rng, 0.0, 0.5) * columns
        rear = (near + side * 400, level)
        draw_tube(canvas, Tube((near, level), rear, (44, 52, 60), body), lit)
        hub, rim = (near + side * 60, level + 42), (near + side * 61, level + 42)
        draw_tube(canvas, Tube(hub, rim, (24, 24), _coat(rng, 15, 40)), lit)
    elif kind == "sign":
        low = between(rng, 0.6, 0.8) * rows
        edge = columns / 2 + side * between(rng, 0.25, 0.5) * columns
        board = Tube((edge, low), (edge, 420), (34, 36), _coat(rng, 60, 230), cap=9)
        draw_tube(canvas, board, lit)
    elif kind == "rail":
        low = between(rng, 0.6, 0.75) * rows
        metal = _coat(rng, 90, 200)
        for y in (low, low + 40):
            draw_tube(canvas, Tube((-20, y), (columns + 20, y - 6), (4, 4), metal), lit)
        draw_tube(canvas, Tube((x, low - 6), (x, 420), (5, 5), metal), lit)
    else:
        leaves = _coat(rng, 60, 90)
        for _ in range(16):
            spot = (x + side * between(rng, 0, 100), between(rng, 0.74, 1.0) * rows)
            leaves[..., 1] = int(rng.integers(80, 130))
            draw_tube(canvas, Tube(spot, (spot[0] + 9, spot[1] + 6), (14, 17), leaves), lit)
