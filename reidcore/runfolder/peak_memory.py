"""The memory that a run has used."""

from __future__ import annotations

import contextlib
import sys

import torch


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the most bytes that this process has held: in main memory, None where the system does
    not tell, and in torch's tensors on the GPU, None without one."""
    main = None
    with contextlib.suppress(ImportError):
        import resource

        # Kibibytes, but for macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        main = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    cuda = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"peak_memory": main, "peak_gpu_memory": cuda}
