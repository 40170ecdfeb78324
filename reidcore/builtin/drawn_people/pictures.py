"""A procedural re-identification data set: walkers in the pictures of a camera network.

`write_demo` draws everything itself, from integers alone: no network, no downloads. People
walk in groups over a ring of cameras which differ in light, colour cast, view, scenery,
resolution and noise; some of the cameras may see near infrared only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reidcore.builtin.drawn_people.figures import Light, Pose, draw_person
from reidcore.builtin.drawn_people.scenery import SCENE_SIZE, cast_shadow, make_scene, occlude
from reidcore.builtin.drawn_people.wardrobe import Person, between, generator, make_person, pick
from reidcore.contracts.rows import COLUMNS
from reidcore.support.files import new_folder
from reidcore.support.text_table import csv_text

HEIGHT = 128
"""Height of the pictures in pixels."""

WIDTH = 64
"""Width of the pictures in pixels."""

TRAVEL_SECONDS = (20.0, 180.0)
"""Shortest and longest walk of a group between two neighbouring cameras of the ring."""

_SCALE = 3  # supersampling
_ROWS = HEIGHT * _SCALE
_COLS = WIDTH * _SCALE
_PASS_SECONDS = 2700  # the groups' passes start within this long
_BYSTANDERS = 40  # people who only ever get in the way

# The first number of every random key, so that no two purposes share a stream.
_PEOPLE = 0
_PICTURES = 1
_CAMERAS = 2
_SCHEDULE = 3
_STRANGERS = 4


@dataclass(frozen=True)
class Camera:
    """A camera: its view, its light and the errors of its sensor."""

    infrared: bool
    heading: float  # of people who walk the network forwards, radians
    pitch: float
    light: float  # side the light comes from, -1..1
    ambient: float
    gains: tuple[float, float, float]
    curve: np.ndarray  # response to a brightness of 0..255, up to 255
    contrast: float
    saturation: float
    lift: float  # brightness of black, 0..255
    detail: float  # resolution relative to the picture's size, up to 1
    noise: float  # standard deviation, 0..255
    quality: int  # of the JPEG
    crop: float  # shift of the detector's boxes relative to their height
    scene: np.ndarray


@dataclass(frozen=True)
class Sighting:
    """One picture to be taken: who, by which camera (from 0), when and how."""

    person: int
    group: int
    camera: int
    tenths: int  # of a second, on the clock all cameras share
    backwards: bool


def plan_sightings(
    people: Sequence[int], cameras: int, pictures: int, rng: np.random.Generator
) -> list[Sighting]:
    """Send `people` through the ring of cameras in groups of two to four.

    The members of a group walk the same way twice, in either direction, and reach a camera
    within seconds of one another. A person gets `pictures` in all, at least one per camera
    and pass: with few pictures the walk leads past some of the cameras only.
    """
    low, high = (10 * seconds for seconds in TRAVEL_SECONDS)
    # Groups walk up to 14 % faster than the time noted here.
    walks = [int(between(rng, low / 0.86, high)) for _ in range(cameras)]
    order = [people[i] for i in rng.permutation(len(people))]
    sightings = []
    group = 0
    while order:
        size = int(rng.integers(2, 5))
        if len(order) - size == 1:  # nobody is left to walk alone
            size += 1 if size < 4 else -1
        members, order = order[:size], order[size:]
        visited = min(cameras, pictures // 2)
        first = int(rng.integers(cameras))
        route = [(first + step) % cameras for step in range(visited)]
        for turn in range(2):
            clock = int(between(rng, 0, 10 * _PASS_SECONDS))
            clock += turn * (10 * _PASS_SECONDS + sum(walks))
            backwards = rng.random() < 0.5
            path = route[::-1] if backwards else route
            for place, camera in enumerate(path):
                if place:
                    # Walk i leads from camera i to the next one of the ring.
                    walk = walks[camera if backwards else path[place - 1]]
                    clock += int(walk * between(rng, 0.86, 1.0))
                for member in members:
                    both = pictures // visited + (route.index(camera) < pictures % visited)
                    count = (both + 1 - turn) // 2
                    moment = clock + int(rng.integers(0, 60))
                    for _ in range(count):
                        sightings.append(Sighting(member, group, camera, moment, backwards))
                        moment += int(rng.integers(4, max(6, min(30, 500 // count))))
        group += 1
    return sightings


def _make_camera(seed: int, number: int, cameras: int, infrared: bool, level: float) -> Camera:
    """Draw the camera with the given number, counted from 0."""
    rng = generator(_CAMERAS, seed, number)
    # Neighbouring cameras lie far apart on the colour circle: no two share a cast.
    hue = math.tau * (number / cameras + between(rng, -0.06, 0.06))
    strength = between(rng, 0.2, 0.3) * level
    exposure = between(rng, -0.25, 0.2) * level
    red, green, blue = (
        2 ** (exposure + strength * math.cos(hue - math.tau * i / 3)) for i in range(3)
    )
    gamma = 2 ** (between(rng, -0.2, 0.2) * level)
    kinds = ("street", "hall", "garden", "brick")
    return Camera(
        infrared=infrared,
        heading=(0.1, 0.8, -0.5, 1.25)[number % 4] + between(rng, -0.25, 0.25),
        pitch=between(rng, 0.08, 0.42),
        light=between(rng, 0.3, 1.0) * pick(rng, (-1, 1)) * (0.3 if infrared else 1),
        ambient=between(rng, 0.35, 0.7),
        gains=(1.0, 1.0, 1.0) if infrared else (red, green, blue),
        curve=np.array([255 * (value / 255) ** gamma for value in range(256)]),
        contrast=1 - between(rng, 0.0, 0.25) * level / 2,
        saturation=max(0.2, 1 - between(rng, 0.0, 0.28) * level),
        lift=between(rng, 0, 24) * level / 2,
        detail=1 - between(rng, 0.05, 0.5) * level / 2,
        noise=between(rng, 1.5, 4) * level * (1.6 if infrared else 1),
        quality=int(92 - between(rng, 5, 38) * level / 1.4),
        crop=between(rng, -0.03, 0.03) * level,
        scene=make_scene(rng, kinds[number % 4]),
    )


def _paint(
    rng: np.random.Generator,
    person: Person,
    strangers: Sequence[Person],
    camera: Camera,
    backwards: bool,
    level: float,
) -> np.ndarray:
    """Paint one supersampled canvas (rows, columns, 4) before it reaches the camera's sensor."""
    x, y = (int(rng.integers(0, a - b)) for a, b in zip(SCENE_SIZE, (_COLS, _ROWS), strict=True))
    canvas = camera.scene[y : y + _ROWS, x : x + _COLS].copy()
    light = Light(camera.light + between(rng, -0.25, 0.25), camera.ambient)
    lit = light.table()

    def put(who: Person, spot: tuple[float, float], height: float, heading: float) -> None:
        pose = Pose(
            phase=between(rng, 0, math.tau),
            stride=pick(rng, (0.15, 0.8, 1.0, 1.1)),
            heading=heading,
            pitch=camera.pitch,
            arms=pick(rng, ("swing", "swing", "swing", "phone", "pockets")),
            folds=int(rng.integers(1 << 10)),
        )
        cast_shadow(canvas, spot[0], spot[1], 0.2 * height, 0.05 * height, 0.6)
        cast = -light.side * 0.25 * height
        cast_shadow(canvas, spot[0] + cast, spot[1] - 6, abs(cast) + 20, 0.035 * height, 0.45)
        draw_person(canvas, who, pose, spot, height, light)

    if rng.random() < 0.2 * level:
        spot = (between(rng, -0.1, 1.1) * _COLS, between(rng, 0.62, 0.85) * _ROWS)
        put(pick(rng, strangers), spot, between(rng, 0.4, 0.7) * _ROWS, between(rng, 0, math.tau))

    # A detector's box: mostly about right, now and then cut, far too large or beside the person.
    zoom = 1 + between(rng, -0.05, 0.05) * level
    middle = _COLS * (0.5 + between(rng, -0.06, 0.06) * level)
    ground = _ROWS * (0.965 + camera.crop + between(rng, -0.025, 0.025) * level)
    slip = rng.random()
    if slip < 0.03 * level:
        zoom, ground = 1.35, ground + between(rng, 0.2, 0.36) * _ROWS
    elif slip < 0.05 * level:
        zoom = 0.76
    elif slip < 0.08 * level:
        middle += pick(rng, (-1, 1)) * between(rng, 0.18, 0.3) * _COLS
    heading = camera.heading + (math.pi if backwards else 0.0) + between(rng, -0.3, 0.3)
    put(person, (middle, ground), 0.9 * zoom * _ROWS, heading)

    if rng.random() < 0.09 * level:
        aside = middle + pick(rng, (-1, 1)) * between(rng, 0.3, 0.5) * _COLS
        spot = (aside, ground + between(rng, 4, 30))
        put(pick(rng, strangers), spot, between(rng, 0.85, 1.0) * _ROWS, heading)
    if rng.random() < 0.1 * level:
        occlude(canvas, rng, lit)
    return canvas


def _take(
    rng: np.random.Generator, canvas: np.ndarray, camera: Camera, level: float
) -> Image.Image:
    """Turn what was painted into the picture (128 x 64, RGB) that the camera sends."""
    channels = 1 if camera.infrared else 3
    detail = min(1.0, camera.detail * (1 + between(rng, -0.15, 0.15) * level))
    small = (max(round(WIDTH * detail), 8), max(round(HEIGHT * detail), 16))
    # Pillow treats the bands of an RGBX image alike; an alpha band would weight the others.
    image = Image.frombytes("RGBX", (_COLS, _ROWS), canvas.tobytes())
    image = image.resize(small, Image.Resampling.BOX).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image)[..., 3:] if camera.infrared else np.asarray(image)[..., :3]
    pixels = pixels.astype(np.float32)

    row = np.arange(HEIGHT, dtype=np.float32)[:, None]
    column = np.arange(WIDTH, dtype=np.float32)[None, :]
    slope = np.float32(between(rng, -0.006, 0.006) * level)
    field = 1 + slope * (column - WIDTH // 2) + slope * np.float32(0.3) * (row - HEIGHT // 2)
    if camera.infrared:
        # The lamp sits beside the lens: a bright middle and dark corners.
        aside, down = (column - 32) / np.float32(44), (row - 56) / np.float32(84)
        field = field * (np.float32(1.15) - (aside * aside + down * down) * np.float32(0.6))
    elif rng.random() < 0.12 * level:
        # The edge of a building's shadow.
        edge = between(rng, 0.2, 0.8) * HEIGHT + between(rng, -1.5, 1.5) * (column - 32)
        inside = ((row - edge) / 3).clip(0, 1)
        field = field * (1 - np.float32(0.5) * (inside if rng.random() < 0.5 else 1 - inside))
    pixels = pixels * field[..., None]

    exposure = 2 ** (between(rng, -0.21, 0.21) * level)
    drift = [2 ** (between(rng, -0.1, 0.1) * level) for _ in range(3)]
    if channels == 3:
        grey = (pixels[..., :1] * 2 + pixels[..., 1:2] * 5 + pixels[..., 2:]) / 8
        pixels = grey + (pixels - grey) * np.float32(camera.saturation)
    index = pixels.clip(0, 255).astype(np.uint8)
    curves = np.empty((channels, 256), dtype=np.float32)
    for channel in range(channels):
        gain = exposure * camera.gains[channel] * (drift[channel] if channels == 3 else 1.0)
        curves[channel] = camera.lift + camera.contrast * np.minimum(gain * camera.curve, 255)
    pixels = np.stack([curves[i].take(index[..., i]) for i in range(channels)], axis=-1)

    # Four uniform numbers add up to nearly normal noise, with the same bits everywhere.
    grains = rng.integers(0, 256, (4, HEIGHT, WIDTH, channels), dtype=np.uint8).astype(np.int32)
    noise = grains[0] + grains[1] + grains[2] + grains[3] - 510
    pixels = pixels + noise * np.float32(camera.noise / 148)
    if camera.infrared:
        # Row noise of the amplifier.
        lines = rng.integers(-128, 128, (HEIGHT, 1, 1)).astype(np.float32)
        pixels = pixels + lines * np.float32(camera.noise / 160)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (HEIGHT, WIDTH, 3)).copy())


def _check(name: str, value: int, low: int, high: int | None = None) -> None:
    """Refuse a `value` that is no whole number from `low` to `high`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limit = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {limit}, got {value!r}")


def write_demo(
    folder: Path,
    *,
    train_identities: int = 60,
    test_identities: int = 40,
    pictures: int = 14,
    cameras: int = 4,
    infrared_cameras: int = 0,
    difficulty: float = 1.0,
    seed: int = 0,
) -> None:
    """Write a data set of drawn walkers: JPEG pictures and `folder/manifest.csv`.

    The manifest has the columns path (relative to it), pid, camera ("1", "2", ...), split
    (train, query, gallery), time (seconds on one clock) and modality (visible, infrared).
    Every picture is 128 pixels high and 64 wide. The last `infrared_cameras` of the
    `cameras` see near infrared: there hues are gone, skin is bright, hair dark, and a garment
    is as bright as its cloth and its colour's lightness make it, half and half, so shapes, what
    is carried and most patterns carry over.  `pictures` counts an identity's pictures over all
    cameras; each test identity gives one query per camera it passes and always has gallery
    pictures in another camera. A further quarter as many people as there are test
    identities appear in the gallery only.  `difficulty` scales the nuisance: 0 is clean, 1
    the usual, 2 the most.

    The same arguments give the same bytes (for one release of Pillow, whose encoder writes
    the files).  `folder` must not exist; it appears complete or not at all.  Raises
    `reidcore.errors.OutputError` where it cannot be written.
    """
    folder = Path(folder)
    _check("train_identities", train_identities, 2)
    _check("test_identities", test_identities, 2)
    _check("pictures", pictures, 4)
    _check("cameras", cameras, 2, 99)
    _check("infrared_cameras", infrared_cameras, 0, cameras)
    _check("seed", seed, 0)
    if not isinstance(difficulty, int | float) or not 0 <= difficulty <= 2:
        raise ValueError(f"difficulty must lie between 0 and 2, got {difficulty!r}")
    if folder.exists():
        raise ValueError(f"folder must not exist yet: {folder}")
    views = [
        _make_camera(seed, i, cameras, i >= cameras - infrared_cameras, difficulty)
        for i in range(cameras)
    ]
    with new_folder(folder) as partial:
        _write(partial, views, train_identities, test_identities, pictures, difficulty, seed)


def _write(
    folder: Path,
    cameras: Sequence[Camera],
    train: int,
    test: int,
    pictures: int,
    level: float,
    seed: int,
) -> None:
    """Draw all pictures into `folder` and write the manifest."""
    strangers = [make_person(generator(_STRANGERS, seed, i)) for i in range(_BYSTANDERS)]
    last = train + test
    everyone = range(1, last + test // 4 + 1)
    rows = []
    for name in ("train", "query", "gallery"):
        (folder / name).mkdir()
    for people in (everyone[:train], everyone[train:]):
        rng = generator(_SCHEDULE, seed, people[0])
        sightings = plan_sightings(people, len(cameras), pictures, rng)
        albums: dict[tuple[int, int], list[Sighting]] = {}
        for sighting in sightings:
            albums.setdefault((sighting.person, sighting.camera), []).append(sighting)
        persons = {pid: make_person(generator(_PEOPLE, seed, pid)) for pid in people}
        for (pid, number), album in sorted(albums.items(), key=lambda item: item[0]):
            camera = cameras[number]
            asked = int(rng.integers(len(album))) if train < pid <= last else -1
            for count, sighting in enumerate(album):
                split = "train" if pid <= train else "query" if count == asked else "gallery"
                dice = generator(_PICTURES, seed, pid, number, count)
                canvas = _paint(dice, persons[pid], strangers, camera, sighting.backwards, level)
                picture = _take(dice, canvas, camera, level)
                path = f"{split}/{pid:04d}_c{number + 1}_{count + 1:02d}.jpg"
                picture.save(folder / path, quality=camera.quality)
                modality = "infrared" if camera.infrared else "visible"
                seconds = f"{sighting.tenths / 10:.1f}"
                rows.append((path, f"{pid:04d}", number + 1, split, seconds, modality))
    (folder / "manifest.csv").write_bytes(csv_text([COLUMNS, *rows]).encode())
