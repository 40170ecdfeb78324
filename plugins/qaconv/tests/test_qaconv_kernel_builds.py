"""The Triton kernels compiled for GPUs that need not be there: registers, shared memory and the
tensor cores' instructions."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")
pytest.importorskip("triton.backends.compiler")

from reid_qaconv.kernel import both_sides, choose_blocks, one_side
from tests import triton_builds
from tests.triton_builds import PER_PROCESSOR, Built


def build(
    folder: Path, architecture: int, operands: str, length: int, channels: int, add: bool = True
) -> Built:
    """The kernel for these maps, as `weighted_matches` would launch it."""
    paired = operands == "float32"
    blocks = choose_blocks(length, channels, paired, divmod(architecture, 10))
    kernel = both_sides if blocks.both(length) else one_side
    own = {"ADD": add}
    if blocks.both(length):
        own = {"MORE": blocks.more, "APART": paired and blocks.apart(length)}
    constants = {
        "DEPTH": blocks.depth,
        "CHUNK": blocks.chunk,
        "PICTURES": blocks.pictures,
        "WIDTH": blocks.width,
        "PAIRED": paired,
        "WIDE": False,
        "STAGES": blocks.stages,
        **own,
    }
    value = {"float32": "fp16", "float16": "fp16", "bfloat16": "bf16"}[operands]
    pointers = dict(zip(kernel.arg_names[:4], ("fp32", value, value, "fp32"), strict=True))
    return triton_builds.build(
        folder, kernel, architecture, pointers, constants, blocks.warps, blocks.stages
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("operands", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "length, channels", [(192, 128), (35, 100), (192, 1152), (256, 128), (288, 64), (768, 128)]
)
def test_kernels_fit_and_use_tensor_cores(length, channels, operands, architecture, tmp_path):
    """No register is spilled, shared memory suffices, and all products are the tensor cores', on
    Hopper by the instructions of its own: published maps, odd ones, patches of 3 x 3, long maps."""
    built = build(tmp_path, architecture, operands, length, channels)
    built.check(architecture)


@pytest.mark.parametrize("operands", ["float16", "bfloat16"])
@pytest.mark.parametrize("length", [128, 192])
def test_two_programs_share_a_processor(length, operands, tmp_path):
    """On an H100 one multiplies while the other takes maxima."""
    built = build(tmp_path, 90, operands, length, 128)
    assert 2 * (built.shared + 1024) <= PER_PROCESSOR
    assert 2 * 128 * built.registers <= 65536


@pytest.mark.parametrize("operands, warpgroups, products", [("bfloat16", 1, 1), ("float32", 2, 3)])
def test_nothing_is_computed_twice(operands, warpgroups, products, tmp_path):
    """Of 64 x 192 responses over 128 channels, 16 of them in an instruction: a product for 16-bit
    operands and three for float32, shared by the warpgroups as are two maxima for each response;
    to them come the last maxima of a row's threads."""
    built = build(tmp_path, 90, operands, 192, 128)
    responses = 64 * 192 // (128 * warpgroups)
    assert built.instructions["HGMMA"] == 2 * products * 128 // 16
    assert 2 * responses <= built.instructions["FMNMX"] <= 2 * responses + 10
