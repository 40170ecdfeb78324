"""Pictures in memory, such as a tracker's, are ranked like the same pictures in files."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import TINY

import reidcore
from reidcore.cli.main import main
from reidcore.data.opening import open_picture
from reidcore.errors import DataError, UsageError
from reidcore.modules import Images, open_run
from reidcore.search.explain_files import write_explanations
from reidcore.search.pictures import rows_of, same_files


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a finished run and some pictures."""
    folder = tmp_path_factory.mktemp("memory")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["run", "tiny.toml", "--out", "run"]) == 0
    (folder / "p").mkdir()
    for number in range(6):
        noise = random.Random(number).randbytes(30 * 50 * 3)
        Image.frombytes("RGB", (30, 50), noise).save(folder / "p" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(work):
    return reidcore.load(work / "run", device="cpu")


def in_memory(path: Path) -> dict[str, object]:
    """A picture in every form that is taken."""
    array = np.asarray(Image.open(path))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    return {
        "path": path,
        "text": str(path),
        "opened": Image.open(path),
        "Pillow": Image.fromarray(array),
        "array": array,
        "slice": np.pad(array, ((3, 2), (4, 1), (0, 0)))[3:-2, 4:-1],
        "reversed": np.ascontiguousarray(array[..., ::-1])[..., ::-1],
        "read-only": np.frombuffer(array.tobytes(), np.uint8).reshape(array.shape),
        "tensor": tensor,
        "contiguous": tensor.contiguous(),
    }


def test_memory_and_file_give_the_same_bits(run, work):
    """One picture, and a list of all forms, have the templates of the file."""
    path = work / "p" / "0.png"
    forms = in_memory(path)
    expected = run.templates([path] * len(forms)).parts["look"]
    found = run.templates(list(forms.values())).parts["look"]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    for form, one in forms.items():
        assert torch.equal(run.distances(one, path), run.distances(path, path)), form


def test_ranking_of_a_tracker(run, work):
    """`rank` takes pictures in memory on both sides; places count from 0 in the list given."""
    paths = sorted((work / "p").glob("*.png"))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    ranked = run.rank([arrays[3], arrays[1]], arrays, top=6)
    plain = run.rank([paths[3], paths[1]], paths, top=5)
    assert ranked.index[:, 0].tolist() == [3, 1]  # a picture in memory is no file of the gallery
    assert ranked.index[:, 1:].tolist() == plain.index.tolist()
    assert torch.equal(ranked.distance[:, 1:], plain.distance)
    first = next(iter(ranked))
    assert re.fullmatch(r"memory-\d+\[0\]", first.query)
    assert re.fullmatch(r"memory-\d+\[3\]", first.gallery)


def test_names_are_of_one_call_alone():
    """Pictures of two calls never count as one, and their pixels are copied."""
    array = np.zeros((4, 3, 3), np.uint8)
    (query,), (gallery,) = rows_of([array]), rows_of([array])
    assert query.name != gallery.name
    assert same_files([query], [gallery]).shape == (2, 0)
    array[:] = 9
    assert open_picture(query).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_of_pillow_is_shown_as_in_a_file(mode: str, tmp_path: Path):
    """Grey, palettes, transparency and 16 bits become what the file becomes."""
    colours = Image.frombytes("RGB", (8, 9), random.Random(0).randbytes(8 * 9 * 3))
    if mode == "I;16":
        picture = Image.fromarray(np.arange(72, dtype=np.uint16).reshape(9, 8) * 900)
    else:
        picture = colours.convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    if mode == "YCbCr":
        picture.convert("RGB").save(path)
    else:
        picture.save(path)
    (row,) = rows_of(picture)
    assert open_picture(row).tobytes() == open_picture(path).tobytes()


def test_orientation_of_an_opened_picture_is_applied(tmp_path: Path):
    """A phone's picture that Pillow has opened lies as its file says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.frombytes("RGB", (8, 5), random.Random(0).randbytes(120))
    picture.save(tmp_path / "a.png", exif=exif)
    (row,) = rows_of([Image.open(tmp_path / "a.png")])
    assert open_picture(row).size == (5, 8)
    assert open_picture(row).tobytes() == open_picture(tmp_path / "a.png").tobytes()


def zeros(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (zeros(4, 3, 3, dtype=np.float32), "is an array of float32 [4, 3, 3], expected uint8"),
        (zeros(4, 3, 3, dtype=np.int64), "from 0 to 255; scale and round others first"),
        (zeros(4, 3, 3, dtype=bool), "is an array of bool [4, 3, 3]"),
        (zeros(4, 3, 3, dtype=object), "is an array of object [4, 3, 3]"),
        (zeros(4, 3), "is an array of uint8 [4, 3], expected uint8 [H, W, 3]; give a grey picture"),
        (zeros(3, 8, 9), "turn it by transpose(1, 2, 0)"),
        (zeros(8, 9, 4), "[8, 9, 4], expected uint8 [H, W, 3]: red, green and blue"),
        (zeros(2, 8, 9, 3), "give a list of pictures, such as list(batch)"),
        (zeros(0, 9, 3), "with H and W of at least 1"),
        (zeros(3), "is an array of uint8 [3], expected uint8 [H, W, 3]"),
        (torch.rand(3, 8, 9), "is a tensor of float32 [3, 8, 9], expected uint8 [3, H, W]"),
        (torch.rand(1, 3, 8, 9), "give a list of pictures, such as list(batch)"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), "turn it by permute(2, 0, 1)"),
        (torch.zeros(1, 8, 9, dtype=torch.uint8), "red, green and blue"),
        (torch.zeros(3, 8, 0, dtype=torch.uint8), "with H and W of at least 1"),
        (Image.new("F", (3, 4)), "of Pillow's mode F, cannot be read: it holds floating-point"),
        (Image.new("I", (3, 4)), "of Pillow's mode I, cannot be read: it holds signed or 32-bit"),
        (Image.new("RGB", (0, 4)), "has no pixels: it is 0 x 4"),
        (7, "is of the type int, expected a path, a picture of Pillow's, a uint8 array"),
        (None, "is of the type NoneType"),
        (b"x.jpg", "is of the type bytes"),
    ],
)
def test_what_is_no_picture_is_told(given: object, said: str):
    """Alone and in a list, with its place in it."""
    with pytest.raises((UsageError, DataError), match=re.escape(said)):
        rows_of(given)
    with pytest.raises((UsageError, DataError), match=re.escape(said)) as error:
        rows_of([zeros(4, 5, 3), given])
    assert str(error.value).startswith("picture 1 of the list (the first is 0)")


def test_no_pictures():
    """Nothing to make templates of is a sentence."""
    for nothing in ([], (), iter([])):
        with pytest.raises(DataError, match="there are no pictures"):
            rows_of(nothing)


def test_a_damaged_picture_of_pillow_is_told(tmp_path: Path):
    """Pillow decodes when pixels are asked for; what goes wrong then is told as of a file."""
    path = tmp_path / "a.png"
    Image.frombytes("RGB", (40, 50), random.Random(0).randbytes(6000)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"picture 0 of the list .* cannot be decoded: "):
        rows_of([Image.open(path)])


def test_index_and_explain_of_pictures_in_memory(run, work, tmp_path):
    """An index of pictures in memory ranks like them, and explanations draw them."""
    paths = sorted((work / "p").glob("*.png"))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    stored = run.index(arrays, tmp_path / "idx")
    assert len(stored) == 6
    assert torch.equal(run.distances(paths, stored), run.distances(paths, paths))
    (pair,) = run.explain(arrays[:1], stored, top=1, limit=1)
    assert write_explanations(tmp_path / "why", [pair])[0] == 1


def test_explanations_name_a_file_with_a_carriage_return(run, work, tmp_path):
    """The listing of what was written can be read."""
    odd = tmp_path / "a\rb.png"
    odd.write_bytes((work / "p" / "0.png").read_bytes())
    write_explanations(tmp_path / "why", run.explain([odd], [work / "p" / "1.png"], top=1))
    with open(tmp_path / "why" / "index.csv", newline="") as file:
        assert {row["query_path"] for row in csv.DictReader(file)} == {str(odd)}


def test_the_network_takes_what_the_documentation_says(run, work):
    """`model(images)` of pictures in any form, and of pixels alone, is one and the same."""
    model = open_run(work / "run", device="cpu")
    images = run.images([*in_memory(work / "p" / "0.png").values()])
    assert images.pixels.dtype == torch.float32
    assert (images.pixels == images.pixels[:1]).all()
    with torch.no_grad():
        features = [one["neck.bn"] for one in (model(images), run.model(images))]
        features += [model(one)["neck.bn"] for one in (Images(images.pixels), images.pixels)]
    assert all(torch.equal(one, features[0]) for one in features)
    cosine = torch.nn.functional.normalize(features[0])
    (template,) = run.templates([*in_memory(work / "p" / "0.png").values()]).parts["look"].values()
    assert torch.allclose(torch.nn.functional.normalize(template), cosine, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 32, 16), "float32 [3, 32, 16]"),
        (torch.zeros(1, 3, 32, 16, dtype=torch.uint8), "uint8 [1, 3, 32, 16]"),
        (torch.zeros(1, 1, 32, 16), "float32 [1, 1, 32, 16]"),
        (zeros(1, 3, 32, 16), "a ndarray"),
        (["p/0.png"], "a list"),
        (torch.zeros(1, 3, 32, 16).double(), "float64 [1, 3, 32, 16]"),
        (torch.zeros(1, 3, 32, 16).half(), "float16 [1, 3, 32, 16]"),
        (Images(torch.zeros(1, 3, 32, 16, dtype=torch.uint8)), "uint8 [1, 3, 32, 16]"),
        (Images(torch.zeros(1, 32, 16, 3)), "float32 [1, 32, 16, 3]"),
    ],
)
def test_what_the_network_cannot_take(run, given: object, said: str):
    """What is no picture for the network is told, and what makes it one."""
    with pytest.raises(UsageError, match=re.escape(f"was given {said}, expected Images or")):
        run.model(given)
