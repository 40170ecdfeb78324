"""Triton kernels compiled for GPUs that need not be there."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import triton
from triton.backends.compiler import GPUTarget

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

    def check(self, architecture: int) -> None:
        """No register is spilled, shared memory suffices, and products are the tensor cores', on
        Hopper by the instructions of its own."""
        assert self.spilled == 0
        assert self.shared <= SHARED[architecture]
        assert self.instructions[TENSOR_CORES[architecture]] > 0
        assert ("wgmma.mma_async" in self.ptx) == (architecture == 90)
        assert not self.instructions["STL"] and not self.instructions["LDL"]


def build(
    folder: Path,
    kernel: Any,
    architecture: int,
    pointers: Mapping[str, str],
    constants: Mapping[str, Any],
    warps: int,
    stages: int,
) -> Built:
    """The kernel's machine code. pointers: the types of what arguments point to; those that are
    neither pointers nor constants are numbers."""
    signature = {
        name: f"*{pointers[name]}"
        if name in pointers
        else "constexpr"
        if name in constants
        else "i32"
        for name in kernel.arg_names
    }
    # Memory that torch allocates is aligned to 16 bytes, which Triton sees at a launch.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name in pointers
    }
    built = triton.compile(
        triton.compiler.ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    )
    file = folder / "kernel.cubin"
    file.write_bytes(built.asm["cubin"])
    usage = _shown("cuobjdump", "-res-usage", file)
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    names = re.findall(
        r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)",
        _shown("nvdisasm", "-c", file),
        re.M,
    )
    return Built(registers, stack + local, built.metadata.shared, built.asm["ptx"], Counter(names))


def _shown(tool: str, *arguments: str | Path) -> str:
    """What a tool that comes with triton says."""
    path = getattr(triton.knobs.nvidia, tool).path
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout
