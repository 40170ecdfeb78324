"""When a matcher's distances come from a Triton kernel of its plugin.

Triton is looked for where a kernel is to be used, and not imported here.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from reidcore.errors import UsageError

LEAST_CAPABILITY = (8, 0)


class Unfit(Exception):
    """A kernel raises it for values that it cannot compute with, saying which."""


class Fused:
    """Follows the setting `fused` of a matcher: auto (the kernel where it can work), always or
    never.

    name, component: the matcher's, such as "pairs" and "qaconv.matcher". inputs: what the kernel
    computes with, in the plural, as messages call it.
    """

    def __init__(
        self, setting: Literal["auto", "always", "never"], name: str, component: str, inputs: str
    ):
        self.setting = setting
        self.matcher = f"matcher {name!r} ({component})"
        self.inputs = inputs
        self.failed = False

    def applies(self, values: Tensor, own: str = "") -> bool:
        """Whether the kernel is to be used for inputs of this type and device. `own`: what else is
        in its way, empty if nothing. Raises `UsageError` where the setting demands the kernel and
        it cannot work."""
        if self.setting == "never" or self.failed:
            return False
        obstacle = self._obstacle(values) or own
        if obstacle and self.setting == "always":
            raise self._refusal(obstacle)
        return not obstacle

    def __call__(self, kernel: Callable[[], Tensor]) -> Tensor | None:
        """What `kernel` returns, which imports triton itself; None where the values are `Unfit`,
        and, told once, where it failed. Raises `UsageError` instead where the setting demands the
        kernel."""
        try:
            return kernel()
        except torch.OutOfMemoryError:
            raise  # The caller tries smaller tiles.
        except Unfit as error:
            if self.setting == "always":
                raise self._refusal(str(error)) from error
            return None
        except Exception as error:
            # Whatever compilers, drivers and devices come up with; plain torch needs none of them.
            first = next(iter(str(error).splitlines()), "")
            found = f"{type(error).__name__}: {first}".removesuffix(": ")
            if self.setting == "always":
                raise self._refusal(f"the kernel failed ({found})") from error
            self.failed = True
            warnings.warn(
                f"{self.matcher}: the fused kernel failed ({found}); plain torch computes its "
                'distances. fused = "never" leaves it out from the beginning.',
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _obstacle(self, values: Tensor) -> str:
        """Why no kernel can work for such values; empty if one can."""
        device = values.device
        if device.type == "cpu" and self.setting == "auto":  # Triton's interpreter is for tests.
            return f"the {self.inputs} are on a CPU"
        if values.dtype == torch.float64:
            return f"the {self.inputs} are float64 and the kernel adds in float32"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; it comes with torch's CUDA builds for Linux"
        if device.type == "cpu":
            if _interpreted():
                return ""
            return f"the {self.inputs} are on a CPU and the kernel needs an NVIDIA GPU"
        if device.type != "cuda" or torch.version.hip:
            return f"the {self.inputs} are on {device}, which is no NVIDIA GPU"
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            return (
                f"{torch.cuda.get_device_name(device)} has compute capability "
                f"{'.'.join(map(str, capability))} and the kernel needs "
                f"{'.'.join(map(str, LEAST_CAPABILITY))}"
            )
        return ""

    def _refusal(self, reason: str) -> UsageError:
        return UsageError(
            f'{self.matcher}: fused = "always", but {reason}. '
            'fused = "auto" uses plain torch there.'
        )


def _interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on a CPU and for tests."""
    try:
        import triton
    except ImportError:  # of one that is there, but lacks what it needs
        return False
    return not isinstance(triton.jit(_interpreted), triton.JITFunction)
