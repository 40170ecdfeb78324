"""The runtime on small graphs written by hand, and without torch."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs `uv run --all-groups`")
pytest.importorskip("reid_runtime", reason="needs `uv run --all-groups`")

from onnx import TensorProto, helper

import reid_runtime
from reid_runtime import Embedder, ExportError, Matcher, rank
from reid_runtime.pictures import pixels

SIZE = 8, 4


def graph(nodes, inputs, output, opset=20):
    """The bytes of a graph; inputs and output are (name, ONNX type, shape)."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*output)],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=imports, ir_version=10).SerializeToString()


def mean_colours():
    """Pictures to the mean of red, green and blue: `look.vector`."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Constant", [], ["axes"], value=axes),
        helper.make_node("Cast", ["pictures"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["look.vector"], keepdims=0),
    ]
    shape = ["batch", *SIZE, 3]
    return graph(
        nodes,
        [("pictures", TensorProto.UINT8, shape)],
        ("look.vector", TensorProto.FLOAT, ["batch", 3]),
    )


def manhattan(channels=(0, 1, 2)):
    """The sum of the absolute differences of some channels."""
    constants = {"one": [1], "zero": [0], "two": [2], "channels": list(channels)}
    nodes = [
        helper.make_node(
            "Constant",
            [],
            [name],
            value=helper.make_tensor(name, TensorProto.INT64, [len(values)], values),
        )
        for name, values in constants.items()
    ]
    nodes += [
        helper.make_node("Gather", ["a.look.vector", "channels"], ["x"], axis=1),
        helper.make_node("Gather", ["b.look.vector", "channels"], ["y"], axis=1),
        helper.make_node("Unsqueeze", ["x", "one"], ["left"]),
        helper.make_node("Unsqueeze", ["y", "zero"], ["right"]),
        helper.make_node("Sub", ["left", "right"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["far"]),
        helper.make_node("ReduceSum", ["far", "two"], ["distances"], keepdims=0),
    ]
    inputs = [(f"{side}.look.vector", TensorProto.FLOAT, [side, 3]) for side in ("a", "b")]
    return graph(nodes, inputs, ("distances", TensorProto.FLOAT, ["a", "b"]))


def write_export(folder, shortlist=None, pair_bytes=4, **changed):
    """An export of these graphs. shortlist: its size; it is chosen by red alone."""
    folder.mkdir()
    files = {"extractor": mean_colours(), "matcher": manhattan()}
    if shortlist:
        files["shortlist"] = manhattan([0])
    said = {}
    for name, content in files.items():
        (folder / f"{name}.onnx").write_bytes(content)
        said[name] = {
            "file": f"{name}.onnx",
            "sha256": sha256(content).hexdigest(),
            "opset": 20,
            "pair_bytes": pair_bytes,
            "whole_gallery": False,
            "top": shortlist,
        }
    manifest = {
        "format": 1,
        "kind": "onnx",
        "ranking": "main",
        "graphs": said,
        "inputs": {"pictures": {}},
        "templates": {"look.vector": {"dtype": "float32", "shape": ["batch", 3]}},
        "preprocessing": {"size": list(SIZE), "interpolation": "bilinear"},
    }
    sealed(folder, {**manifest, **changed})
    return folder


def sealed(folder, manifest):
    """Write a manifest with its digest."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    told = {**said, "sha256": sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}
    (folder / "export.json").write_text(json.dumps(told, indent=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export") / "whole")


def drawn(count, seed=0):
    """Pictures of several sizes."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(3, 30, (count, 2))
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def templates(count, seed):
    draw = np.random.default_rng(seed)
    return {"look.vector": draw.random((count, 3), dtype=np.float32)}


def naive(a, b, channels=(0, 1, 2)):
    x, y = (side["look.vector"][:, list(channels)].astype(np.float64) for side in (a, b))
    return np.array([[np.abs(one - other).sum() for other in y] for one in x])


def test_a_picture_gives_the_same_in_every_form_and_batch(folder, tmp_path):
    pictures = drawn(7)
    expected = [
        np.asarray(Image.fromarray(one).resize(SIZE[::-1], Image.Resampling.BILINEAR)).mean((0, 1))
        for one in pictures
    ]
    paths = []
    for number, one in enumerate(pictures):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(one).save(paths[-1])
    forms = [pictures, paths, list(map(str, paths)), [Image.fromarray(one) for one in pictures]]
    for batch in (1, 3, 32):
        embed = Embedder(folder, threads=2, batch=batch)
        for given in forms:
            (found,) = embed.templates(given).values()
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    vectors = embed(pictures)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors * np.linalg.norm(expected, axis=1)[:, None], expected, 1e-5)


def test_no_pictures_are_no_vectors(folder):
    assert Embedder(folder)([]).shape == (0, 3)
    nobody = Embedder(folder).templates([])
    assert rank(templates(2, 1), nobody, Matcher(folder))[0].shape == (2, 0)


@pytest.mark.parametrize("pairs", [1, 3, 10, 10**6])
def test_distances_do_not_depend_on_tiles(folder, tmp_path, pairs):
    own = write_export(tmp_path / "export", pair_bytes=4096)
    a, b = templates(7, 1), templates(11, 2)
    matcher = Matcher(own, memory=pairs * 4096 / 2**30)
    np.testing.assert_allclose(matcher(a, b), naive(a, b), rtol=1e-5)


def test_a_gallery_that_must_be_whole_is_not_divided(tmp_path):
    own = write_export(tmp_path / "export", pair_bytes=2**30)
    manifest = json.loads((own / "export.json").read_text())
    manifest["graphs"]["matcher"]["whole_gallery"] = True
    sealed(own, manifest)
    matcher, asked = Matcher(own), []
    session = matcher._sessions["matcher"]

    class Counting:
        get_inputs = session.get_inputs

        def run(self, names, given):
            asked.append(len(given["b.look.vector"]))
            return session.run(names, given)

    matcher._sessions["matcher"] = Counting()
    matcher(templates(3, 1), templates(5, 2))
    assert asked == [5, 5, 5]


def test_ranked_lists(folder):
    a, b = templates(6, 1), templates(20, 2)
    b["look.vector"][7] = b["look.vector"][3]  # equally near
    near, distances = rank(a, b, Matcher(folder), top=20)
    expected = naive(a, b)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1), rtol=1e-5)
    assert all(list(row).index(3) + 1 == list(row).index(7) for row in near)
    assert rank(a, b, Matcher(folder), top=4)[0].shape == (6, 4)


def test_a_shortlist_is_chosen_by_its_own_graph(tmp_path):
    matcher = Matcher(write_export(tmp_path / "export", shortlist=5))
    a, b = templates(6, 1), templates(20, 2)
    near, distances = rank(a, b, matcher, top=3)
    for row, (coarse, fine) in enumerate(zip(naive(a, b, [0]), naive(a, b), strict=True)):
        listed = sorted(np.argsort(coarse)[:5], key=lambda place: fine[place])
        assert list(near[row]) == listed[:3]
        np.testing.assert_allclose(distances[row], fine[listed[:3]], rtol=1e-5)
    assert rank(a, b, matcher, top=10)[0].shape == (6, 5)


def test_what_is_no_export_is_told(folder, tmp_path):
    with pytest.raises(ExportError, match=r"holds no export: there is no export\.json"):
        Embedder(tmp_path)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(ExportError, match=r"export\.json is damaged"):
        Embedder(tmp_path)
    with pytest.raises(ExportError, match="format 2, and this reid-runtime reads 1; upgrade"):
        Embedder(write_export(tmp_path / "new", format=2))
    with pytest.raises(ExportError, match="holds graphs of torch; export with --format onnx"):
        Matcher(write_export(tmp_path / "torch", kind="torch"))
    with pytest.raises(ExportError, match=r"the templates lack look\.vector"):
        Matcher(folder)({"other": np.zeros((1, 3))}, templates(1, 1))


def test_an_edited_graph_is_refused(tmp_path):
    own = write_export(tmp_path / "export")
    path = own / "extractor.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"is not the file that export\.json lists: its SHA-256"):
        Embedder(own)
    Matcher(own)  # the other graph is as it was
    path.unlink()
    with pytest.raises(ExportError, match=r"extractor\.onnx cannot be read: No such file"):
        Embedder(own)


@pytest.mark.parametrize(
    "edit",
    [
        lambda said: said["preprocessing"].update(interpolation="bicubic"),
        lambda said: said["preprocessing"].update(size=[4, 4]),
        lambda said: said.pop("graphs"),
        lambda said: said.pop("sha256"),
        lambda said: said.update(thresholds=[{"distance": 0.9}]),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, edit):
    """Other resizing would give other vectors, and nothing else would tell."""
    own = write_export(tmp_path / "export")
    said = json.loads((own / "export.json").read_text())
    (own / "export.json").write_text(json.dumps(said, indent=4))  # other spaces say the same
    Matcher(own)
    edit(said)
    (own / "export.json").write_text(json.dumps(said))
    for kind in (Embedder, Matcher):
        with pytest.raises(ExportError, match=r"export\.json was edited: its SHA-256 differs"):
            kind(own)


def test_an_opset_that_onnxruntime_does_not_know_is_told(tmp_path):
    own = write_export(tmp_path / "export")
    content = graph(
        [helper.make_node("Identity", ["pictures"], ["look.vector"])],
        [("pictures", TensorProto.UINT8, ["batch"])],
        ("look.vector", TensorProto.UINT8, ["batch"]),
        opset=999,
    )
    (own / "extractor.onnx").write_bytes(content)
    manifest = json.loads((own / "export.json").read_text())
    manifest["graphs"]["extractor"].update(sha256=sha256(content).hexdigest(), opset=999)
    sealed(own, manifest)
    with pytest.raises(ExportError, match=r"onnxruntime [\d.]+ cannot read .* of opset 999"):
        Embedder(own)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\], expected uint8 \[H, W, 3\]"),
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\], expected .* not empty"),
        ("absent.png", r"picture absent\.png cannot be read"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "what is black and white"),
    ],
)
def test_bad_pictures_are_told(folder, picture, message):
    with pytest.raises(ExportError, match=message):
        Embedder(folder).templates([picture])


@pytest.mark.parametrize(
    "whole", ["abcde.png", Path("a.png"), Image.new("RGB", (4, 4)), drawn(1)[0]]
)
def test_a_picture_without_a_list_is_refused(folder, whole):
    """A path is no list of letters, nor an array one of rows."""
    named = f"the path {whole}" if isinstance(whole, str | os.PathLike) else "a single picture"
    for embed in (Embedder(folder), Embedder(folder).templates):
        with pytest.raises(ExportError, match=rf"found {named}, expected a list of pictures"):
            embed(whole)


def grey_tiff(rows, bits, zero_is_white):
    """The content of a TIFF file of grey with so many bits; rows: their bytes, 8 pixels each."""
    tags = {256: 8, 257: len(rows), 258: bits, 259: 1, 262: int(not zero_is_white), 273: 8}
    tags |= {277: 1, 278: len(rows), 279: sum(map(len, rows))}
    pixels = b"".join(rows)
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)


def exif(orientation):
    """Exif data with an orientation, a number or text."""
    text = isinstance(orientation, bytes)
    value = orientation + bytes(1) if text else struct.pack("<H", orientation)
    entry = struct.pack("<HHHI4s", 1, 0x0112, 2 if text else 3, len(value) if text else 1, value)
    return b"Exif\0\0II*\0\x08\0\0\0" + entry + bytes(4)


def odd_pictures(folder):
    """Write pictures of every kind that is shown in a way of its own; yield their paths."""
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (37, 23, 3), dtype=np.uint8))
    alpha = Image.fromarray(draw.integers(0, 256, (37, 23), dtype=np.uint8))
    deep = draw.integers(0, 65536, (37, 23), dtype=np.uint16)
    clear = colours.convert("RGBA")
    clear.putalpha(alpha)
    palette = colours.quantize(16)
    kinds = {
        "clear.png": (clear, {}),
        "clear.webp": (clear, {"lossless": True}),
        "clear.tiff": (clear, {}),
        "clear-grey.png": (Image.merge("LA", (colours.convert("L"), alpha)), {}),
        "palette.gif": (colours.convert("P"), {}),
        "palette.png": (palette, {}),
        "clear-palette.png": (palette, {"transparency": bytes(range(0, 256, 16))}),
        "key-palette.gif": (palette, {"transparency": 3}),
        "key-grey.png": (colours.convert("L"), {"transparency": 7}),
        "key.png": (Image.new("RGB", (9, 5), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        "grey.png": (colours.convert("L"), {}),
        "print.jpg": (colours.convert("CMYK"), {}),
        "print.tiff": (colours.convert("CMYK"), {}),
        "video.jpg": (colours.convert("YCbCr"), {}),
        "lab.tiff": (colours.convert("LAB"), {}),
        "one.bmp": (colours.convert("1"), {}),
        "one.tiff": (colours.convert("1"), {}),
        "frames.gif": (palette, {"save_all": True, "append_images": [Image.new("P", (23, 37))]}),
        "frames.png": (colours, {"save_all": True, "append_images": [clear.convert("RGB")]}),
        "frames.tiff": (colours, {"save_all": True, "append_images": [alpha]}),
        "deep.png": (Image.fromarray(deep), {}),
        "deep.tiff": (Image.fromarray(deep), {}),
        "deep.ppm": (Image.fromarray(deep), {}),
        "deep.jp2": (Image.fromarray(deep), {}),
        "integers.tiff": (Image.fromarray(deep.astype(np.int32)), {}),
        "numbers.tiff": (Image.fromarray(deep.astype(np.float32)), {}),
        "other.ico": (colours, {}),
    }
    for orientation in [*range(10), b"6", b"up"]:
        for name in ("png", "jpg", "webp"):
            kinds[f"turned-{orientation}.{name}"] = (colours, {"exif": exif(orientation)})
        kinds[f"deep-turned-{orientation}.png"] = (
            Image.fromarray(deep),
            {"exif": exif(orientation)},
        )
        if isinstance(orientation, int):
            tag = {"tiffinfo": {0x0112: orientation}}
            kinds[f"turned-{orientation}.tiff"] = (colours, tag)
            kinds[f"grey-turned-{orientation}.tiff"] = (alpha, tag)
            kinds[f"print-turned-{orientation}.tiff"] = (colours.convert("CMYK"), tag)
            kinds[f"deep-turned-{orientation}.tiff"] = (Image.fromarray(deep), tag)
    for name in ("png", "jpg", "webp"):
        damaged = exif(6).replace(b"II*", b"II-")
        kinds[f"damaged-exif.{name}"] = (colours, {"exif": damaged})
    for name, (picture, options) in kinds.items():
        picture.save(folder / name, **options)
    turned = (folder / "turned-6.png").read_bytes()
    contents = {
        "half.png": turned[: len(turned) // 2],
        "half.jpg": (folder / "turned-6.jpg").read_bytes()[:1000],
        "empty.png": b"",
        "words.png": b"words",
    }
    for white in (False, True):
        rows = [draw.bytes(16) for _ in range(6)]
        contents[f"deep-{white}.tiff"] = grey_tiff(rows, 16, white)
        contents[f"twelve-{white}.tiff"] = grey_tiff([row[:12] for row in rows], 12, white)
        contents[f"eight-{white}.tiff"] = grey_tiff([row[:8] for row in rows], 8, white)
    dice = random.Random(0)
    for name in ("clear.png", "palette.gif", "turned-6.jpg", "turned-6.webp", "turned-6.tiff"):
        for number in range(40):
            content = bytearray((folder / name).read_bytes())
            for _ in range(3):
                content[dice.randrange(min(len(content), 400))] = dice.choice([0, 1, 255])
            contents[f"damaged-{number}-{name}"] = bytes(content)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in (*kinds, *contents)]


@pytest.mark.filterwarnings("ignore")
def test_pictures_are_as_the_core_shows_them(tmp_path):
    """Bit by bit what training reads, whatever the file's kind, and refused where it refuses."""
    decoding = pytest.importorskip("reidcore.data.decoding")
    from reidcore.contracts.component import Row
    from reidcore.errors import DataError

    told = {"shown": 0, "refused": 0}
    for path in odd_pictures(tmp_path):
        for interpolation in ("bilinear", "bicubic", "lanczos"):
            try:
                expected = decoding.decode(Row(str(path), ""), (16, 9), interpolation)
            except DataError:
                told["refused"] += 1
                with pytest.raises(ExportError, match=rf"picture {path} cannot be read: ."):
                    pixels(path, (16, 9), interpolation)
                continue
            told["shown"] += 1
            found = pixels(path, (16, 9), interpolation)
            assert (found == expected.permute(1, 2, 0).numpy()).all(), (path.name, interpolation)
    assert min(told.values()) > 30


def test_it_needs_neither_torch_nor_the_core(folder):
    script = (
        "import sys\n"
        "for name in ('torch', 'reidcore', 'onnx'): sys.modules[name] = None\n"
        "from reid_runtime import Embedder, Matcher, rank\n"
        "import numpy as np\n"
        f"embed = Embedder({str(folder)!r})\n"
        "found = embed.templates([np.zeros((9, 9, 3), np.uint8)])\n"
        f"print(rank(found, found, Matcher({str(folder)!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(array([[0]]), array([[0.]], dtype=float32))\n"


def test_it_stays_small():
    files = Path(reid_runtime.__file__).parent.glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) < 320


def test_modalities_and_cameras_go_by_name(tmp_path):
    nodes = [
        helper.make_node("Unsqueeze", [name, "one"], [f"{name}.column"])
        for name in ("modality", "camera")
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Constant", [], ["one"], value=one),
        *nodes,
        helper.make_node("Concat", ["modality.column", "camera.column"], ["numbers"], axis=1),
        helper.make_node("Cast", ["numbers"], ["look.vector"], to=TensorProto.FLOAT),
    ]
    content = graph(
        nodes,
        [
            ("pictures", TensorProto.UINT8, ["batch", *SIZE, 3]),
            ("modality", TensorProto.INT64, ["batch"]),
            ("camera", TensorProto.INT64, ["batch"]),
        ],
        ("look.vector", TensorProto.FLOAT, ["batch", 2]),
    )
    inputs = {
        "pictures": {},
        "modality": {"numbers": {"visible": 0, "infrared": 1}},
        "camera": {"numbers": {"door": 0, "yard": 4}},
    }
    own = write_export(tmp_path / "export", inputs=inputs)
    (own / "extractor.onnx").write_bytes(content)
    manifest = json.loads((own / "export.json").read_text())
    manifest["graphs"]["extractor"]["sha256"] = sha256(content).hexdigest()
    sealed(own, manifest)
    embed, pictures = Embedder(own, batch=2), drawn(3)
    found = embed.templates(
        pictures, modality=["infrared", "visible", "infrared"], camera=["yard", "roof", "door"]
    )
    assert found["look.vector"].tolist() == [[1, 4], [0, -1], [1, 0]]
    found = embed.templates(pictures, modality="infrared")
    assert found["look.vector"].tolist() == [[1, -1]] * 3
    with pytest.raises(ExportError, match="modality is None; this export knows visible, infrared"):
        embed.templates(pictures)
    with pytest.raises(ExportError, match="camera names 2 for 3 pictures"):
        embed.templates(pictures, modality="visible", camera=["door", "yard"])
