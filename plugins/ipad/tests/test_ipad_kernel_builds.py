"""The Triton kernel of `ipad.mutual` compiled for GPUs that need not be there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")
pytest.importorskip("triton.backends.compiler")

from reid_ipad.kernel import GROUP, choose_blocks, differences
from tests import triton_builds
from tests.triton_builds import Built

PAIRED = {"float32": (True, True), "16 bits, pre": (False, True), "16 bits": (False, False)}
"""Whether kernels and vectors come with remainders, by what is stored and computed."""


def build(folder: Path, architecture: int, paired: tuple[bool, bool], depth: int) -> Built:
    """The kernel for filters of so many values, as `fused_distances` would launch it."""
    blocks = choose_blocks(depth, paired, divmod(architecture, 10))
    constants = {
        "DEPTH": blocks.depth,
        "CHUNK": blocks.chunk,
        "ROWS": blocks.rows,
        "COLUMNS": blocks.columns,
        "GROUP": GROUP,
        "KERNELS_PAIRED": paired[0],
        "VECTORS_PAIRED": paired[1],
        "STAGES": blocks.stages,
    }
    values = ("fp32", "fp16", "fp16", "fp32", "fp16", "fp16", "fp32")
    pointers = dict(zip(differences.arg_names[:7], values, strict=True))
    return triton_builds.build(
        folder, differences, architecture, pointers, constants, blocks.warps, blocks.stages
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("paired", PAIRED.values(), ids=PAIRED.keys())
@pytest.mark.parametrize("depth", [5, 100, 128, 256, 1000])
def test_the_kernel_fits_and_uses_tensor_cores(depth, paired, architecture, tmp_path):
    """No register is spilled, shared memory suffices, and all products are the tensor cores', on
    Hopper by the instructions of its own: published kernels, odd and small ones, several views."""
    build(tmp_path, architecture, paired, depth).check(architecture)


@pytest.mark.parametrize("kind, products, chunk", [("float32", 3, 32), ("16 bits", 1, 128)])
def test_nothing_is_computed_twice(kind, products, chunk, tmp_path):
    """On an H100: of a step's 128 x 128 differences each of two warpgroups multiplies half, 64 rows
    by 128 columns of 16 values in an instruction, for both terms once with 16 bits and three times
    with float32, which it starts together and not one after another; and squares its half once."""
    built = build(tmp_path, 90, PAIRED[kind], 128)
    assert built.instructions["HGMMA"] == 2 * products * chunk // 16
    assert built.ptx.count("wgmma.fence") == 2 * products
    assert built.instructions["WARPGROUP"] == 2 * 2 * products
    assert built.instructions["FFMA"] == 128 * 128 // 256
