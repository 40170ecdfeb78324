"""Every picture is opened as a viewer shows it, or refused in a sentence."""

from __future__ import annotations

import io
import os
import random
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from own_pictures import picture, reid
from PIL import Image

from reidcore.api import Row
from reidcore.data.check import check_rows
from reidcore.data.decoding import decode
from reidcore.data.index import list_pictures
from reidcore.data.opening import BadPicture, decoded, open_picture
from reidcore.errors import DataError
from reidcore.search.pictures import rows_of

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **how) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def shown(content: bytes) -> np.ndarray:
    return np.asarray(decoded(content).picture)


def tiff16(values: np.ndarray, photometric: int = 1) -> bytes:
    return saved(Image.fromarray(values.astype(np.uint16)), "TIFF", tiffinfo={262: photometric})


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(kind: str, factor: int):
    """16 bits become the 8 upper ones, in every format that holds them."""
    content = saved(Image.fromarray(GREY.astype(np.uint16) * factor), kind)
    assert (shown(content) == GREY[:, :, None]).all()


def test_big_endian_and_inverted_16_bit_tiff():
    """The order of bytes and "0 is white" are those that the file states."""
    grey = Image.frombytes("I;16B", (16, 16), (GREY.astype(">u2") * 257).tobytes())
    assert (shown(saved(grey, "TIFF"))[:, :, 0] == GREY).all()
    content = bytearray(tiff16(GREY.astype(np.uint16) * 257))
    at = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01")
    content[at + 8] = 0
    assert (shown(bytes(content))[:, :, 0] == 255 - GREY).all()


@pytest.mark.parametrize("values", [np.float32, np.int32])
def test_values_without_a_scale_are_refused(values: type):
    """Floats and 32-bit integers say nothing of black and white."""
    with pytest.raises(BadPicture, match="save it with 8 or unsigned 16 bits"):
        shown(saved(Image.fromarray(GREY.astype(values)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int):
    """All eight orientations give the picture that was seen, once, in every format with Exif."""
    how = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    upright = Image.fromarray(COLOURS if kind != "JPEG" else np.full_like(COLOURS, 9))
    if kind == "JPEG":
        upright.paste((200, 200, 200), (0, 0, 3, 5))
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    lying = upright if back is None else upright.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = decoded(saved(lying, kind, exif=exif, **how))
    assert opened.picture.size == upright.size
    assert bool(opened.found) == (orientation > 1)
    away = np.abs(np.asarray(opened.picture).astype(int) - np.asarray(upright))
    assert away.mean() < 20 if kind == "JPEG" else not away.any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures_keep_their_bytes(kind: str, mode: str):
    """Plain 8-bit pictures are what Pillow makes of them, and nothing is said of them."""
    content = saved(Image.fromarray(COLOURS).convert(mode), kind)
    opened = decoded(content)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert opened.picture.tobytes() == expected.tobytes() and not opened.found


def test_transparent_parts_are_white():
    """What hides under transparency is not shown: alpha, grey with alpha, palettes, colour keys."""
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    red.putpixel((0, 0), (0, 255, 0, 0))
    red.putpixel((1, 0), (255, 0, 0, 128))
    pixels = shown(saved(red, "PNG"))
    assert pixels[0, 0].tolist() == [255] * 3 and pixels[2, 2].tolist() == [255, 0, 0]
    assert pixels[0, 1].tolist() == [255, 127, 127]
    for kind in ("L", "RGB", "P"):
        key = (0, 0, 0) if kind == "RGB" else 0
        black = Image.new(kind, (4, 4), key)
        opened = decoded(saved(black, "PNG", transparency=key))
        assert np.asarray(opened.picture).min() == 255 and "transparent" in opened.found[0]
    opaque = decoded(saved(Image.new("RGBA", (4, 4), (1, 2, 3, 255)), "PNG"))
    assert opaque.picture.getpixel((0, 0)) == (1, 2, 3) and not opaque.found


def test_print_palette_and_black_and_white():
    """CMYK, palettes and single bits keep their colours."""
    assert shown(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"))[0, 0, 0] > 250
    palette = Image.fromarray(COLOURS).quantize(16)
    assert (shown(saved(palette, "PNG")) == np.asarray(palette.convert("RGB"))).all()
    bits = Image.fromarray(GREY > 99)
    assert (shown(saved(bits, "PNG"))[:, :, 0] == np.where(GREY > 99, 255, 0)).all()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", ["EPS", "AVIF", "DDS", "BLP", "TGA", "ICO", "PDF"])
def test_formats_outside_the_list_are_refused(kind: str, tmp_path: Path, monkeypatch):
    """Whatever it is called, a file of another format is our error; no program is started."""
    monkeypatch.setattr("subprocess.Popen", None)
    path = tmp_path / "x.jpg"
    try:
        path.write_bytes(EPS if kind == "EPS" else saved(Image.new("P", (8, 8)), kind))
    except (OSError, KeyError, ValueError):
        path.write_bytes(saved(Image.new("RGB", (8, 8)), kind))
    for opening in (lambda: decode(Row(str(path), "", listed="own.csv row 2"), (8, 4), "bilinear"),
                    lambda: open_picture(path)):  # fmt: skip
        with pytest.raises(DataError, match=r"x\.jpg .*it is not a picture that Pillow knows"):
            opening()


def special(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(path.parent, os.O_RDONLY)
            os.chdir(here)
            os.close(here)
            one.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "is a pipe"),
        ("socket", "is a socket"),
        ("device", "is a device"),
        ("loop", "cannot be read: "),
        ("folder", "is a folder"),
        ("huge", "has 1,099,511,627,776 bytes"),
    ],
)
@pytest.mark.timeout(60)
def test_only_regular_files_are_opened(kind: str, said: str, tmp_path: Path, monkeypatch, capsys):
    """What is no regular file is told in a sentence, by every way to a picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    path = tmp_path / "p" / "x.jpg"
    special(kind, path)
    picture(tmp_path / "p" / "good.jpg")
    (tmp_path / "own.csv").write_text("path,pid,split\np/good.jpg,1,train\np/x.jpg,1,train\n")
    for how in ((), ("--fast",)):
        assert reid("check", tmp_path / "own.csv", *how) == 4
        assert f"own.csv row 3: {path} {said}" in capsys.readouterr().out
    for opening in (
        lambda: decode(Row(str(path), ""), (8, 4), "bilinear"),
        lambda: open_picture(path),
    ):
        with pytest.raises(DataError, match=f"x.jpg .*{said}"):
            opening()
    if kind != "folder":
        (row,) = rows_of(path)
        assert row.path == str(path)  # `rank --query x.jpg` opens it, as above
    listed = [Path(row.path).name for row in list_pictures(tmp_path / "p")]
    assert listed == ["good.jpg"] + ["x.jpg"] * (kind != "folder")


def test_a_pipe_that_takes_the_place_of_a_file_does_not_hang(tmp_path: Path, monkeypatch):
    """A file that is replaced between look and opening is refused as well."""
    os.mkfifo(tmp_path / "x.jpg")
    monkeypatch.setattr("reidcore.data.picture_files.check_file", lambda path: None)
    done = []

    def opening() -> None:
        with pytest.raises(DataError, match="is a pipe"):
            open_picture(tmp_path / "x.jpg")
        done.append(True)

    thread = threading.Thread(target=opening, daemon=True)
    thread.start()
    thread.join(20)
    assert done


def test_paths_that_no_system_takes(tmp_path: Path):
    """A NUL character and an endless name are sentences, too."""
    for name in ("a\0b.jpg", "a" * 5000):
        with pytest.raises(DataError, match="cannot be read: "):
            open_picture(tmp_path / name)


def test_check_says_what_it_found(tmp_path: Path, capsys):
    """`data check` tells how pictures are changed to be shown, and warns of nearly black ones."""
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(GREY.astype(np.uint16) * 9).save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "c.jpg", exif=exif)
    names = ("a.png", "b.png", "c.jpg")
    rows = "".join(f"{name},1,train\n" for name in names)
    (tmp_path / "own.csv").write_text("path,pid,split\n" + rows)
    assert reid("check", tmp_path / "own.csv") == 0
    said = capsys.readouterr().out
    assert "note: 2 pictures in 16-bit grey, of which the upper 8 bits are used\n" in said
    assert "warning: 1 picture in 16-bit grey that stays nearly black" in said
    assert f"orientation in the file says\n  own.csv row 4: {tmp_path}/c.jpg\n" in said


def damaged(seed: int) -> bytes:
    """A picture of some format and mode with bytes changed, cut or repeated."""
    draw = random.Random(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    kind, mode = draw.choice(
        [("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"),
         ("JPEG", "CMYK"), ("TIFF", "RGB"), ("TIFF", "I;16"), ("GIF", "P"), ("BMP", "RGB"),
         ("WEBP", "RGBA"), ("PPM", "L"), ("JPEG2000", "RGB")]
    )  # fmt: skip
    how = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    content = bytearray(saved(Image.new(mode, (9, 7)), kind, **how))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(min(len(content), draw.choice([40, 400, 4000])))
        content[at] = draw.choice([0, 1, 255, draw.randrange(256)])
    if draw.random() < 0.2:
        del content[draw.randrange(1, len(content)) :]
    return bytes(content)


def only_our_errors(seeds: range) -> None:
    refused = 0
    for seed in seeds:
        try:
            assert decoded(damaged(seed)).picture.mode == "RGB"
        except BadPicture as error:
            refused += 1
            assert len(str(error)) < 400 and "0x" not in str(error)
    assert refused > len(seeds) // 10


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_our_errors():
    """Damaged pictures are decoded or refused, never another exception."""
    only_our_errors(range(600))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_bytes_are_our_errors():
    """The same with 30,000."""
    only_our_errors(range(1000, 31000))


def test_rows_without_decoding_are_not_opened(tmp_path: Path):
    """--fast finds nothing of what pictures hold."""
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "a.png")
    assert not check_rows([Row(str(tmp_path / "a.png"), "1")], decode=False).converted
