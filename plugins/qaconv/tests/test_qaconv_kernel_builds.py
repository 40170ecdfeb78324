"""The Triton kernels compiled for GPUs that need not be there: registers, shared memory and the
tensor cores' instructions."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import attrs
import pytest

triton = pytest.importorskip("triton")
compiler = pytest.importorskip("triton.backends.compiler")

from reid_qaconv.kernel import both_sides, choose_blocks, one_side  # noqa: E402

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one program may have on an A100 and on an H100."""
TENSOR_CORES = {80: "HMMA", 90: "HGMMA"}
PER_PROCESSOR = 228 * 1024
"""Bytes of shared memory of one of an H100's processors, 1 KiB of which each program loses."""


@attrs.frozen
class Built:
    registers: int
    spilled: int
    shared: int
    ptx: str
    instructions: Counter[str]


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
        "DEPTH": blocks.depth, "CHUNK": blocks.chunk, "PICTURES": blocks.pictures,
        "WIDTH": blocks.width, "PAIRED": paired, "WIDE": False, "STAGES": blocks.stages, **own,
    }  # fmt: skip
    value = {"float32": "fp16", "float16": "fp16", "bfloat16": "bf16"}[operands]
    # Memory that torch allocates is aligned to 16 bytes, which Triton sees at a launch.
    pointers = {0: "fp32", 1: value, 2: value, 3: "fp32"}
    signature = {
        name: f"*{pointers[place]}"
        if place in pointers
        else "constexpr"
        if name in constants
        else "i32"
        for place, name in enumerate(kernel.arg_names)
    }
    aligned = {(place,): [["tt.divisibility", 16]] for place in pointers}
    built = triton.compile(
        triton.compiler.ASTSource(kernel, signature, constants, aligned),
        target=compiler.GPUTarget("cuda", architecture, 32),
        options={
            "num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True,
        },
    )  # fmt: skip
    file = folder / "kernel.cubin"
    file.write_bytes(built.asm["cubin"])
    usage = shown("cuobjdump", "-res-usage", file)
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    names = re.findall(
        r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)",
        shown("nvdisasm", "-c", file),
        re.M,
    )
    return Built(
        registers, stack + local, built.metadata.shared, built.asm["ptx"], Counter(names)
    )  # fmt: skip


def shown(tool: str, *arguments: str | Path) -> str:
    """What a tool that comes with triton says."""
    path = getattr(triton.knobs.nvidia, tool).path
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


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
    assert built.spilled == 0
    assert built.shared <= SHARED[architecture]
    assert built.instructions[TENSOR_CORES[architecture]] > 0
    assert ("wgmma.mma_async" in built.ptx) == (architecture == 90)
    assert not built.instructions["STL"] and not built.instructions["LDL"]


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
