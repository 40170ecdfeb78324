"""Choice between a Triton kernel of a plugin and plain torch for a matcher's distances.

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
"""Lowest CUDA compute capability on which kernels are used."""


class Unfit(Exception):
    """Raised by a kernel for values that it cannot compute with; the text says which.

    Example:
        >>> from reidcore.modules import Unfit
        >>> raise Unfit("a map has more than 1,024 places")
        Traceback (most recent call last):
        ...
        reidcore.contracts.fused.Unfit: a map has more than 1,024 places
    """


class Fused:
    """A matcher's setting `fused`: it decides when a Triton kernel computes the distances.

    Args:
        setting: "auto" uses the kernel where it can work, "always" demands it, "never" leaves it
            out.
        name: Name of the matcher in the run file, such as "pairs".
        component: Name of the component, such as "qaconv.matcher".
        inputs: Plural noun for the kernel's inputs in messages, such as "maps".

    Example:
        >>> import torch
        >>> from reidcore.modules import Fused
        >>> maps = torch.rand(2, 8, 4, 4)
        >>> Fused("auto", "pairs", "example.matcher", "maps").applies(maps)  # they are on a CPU
        False
    """

    def __init__(
        self, setting: Literal["auto", "always", "never"], name: str, component: str, inputs: str
    ):
        self.setting = setting
        self.matcher = f"matcher {name!r} ({component})"
        self.inputs = inputs
        self.failed = False

    def applies(self, values: Tensor, own: str = "") -> bool:
        """Return True if the kernel is to be used for inputs of this dtype and device.

        Args:
            values: One of the inputs.
            own: Reason of the matcher's own against the kernel; "" if there is none.

        Raises:
            UsageError: The setting demands the kernel, and it cannot work.
        """
        if self.setting == "never" or self.failed:
            return False
        obstacle = self._obstacle(values) or own
        if obstacle and self.setting == "always":
            raise self._refusal(obstacle)
        return not obstacle

    def __call__(self, kernel: Callable[[], Tensor]) -> Tensor | None:
        """Return the kernel's result, or None if plain torch must compute it.

        A kernel that fails is not tried again; a RuntimeWarning says so once.

        Args:
            kernel: Function without arguments, which imports triton itself. It may raise `Unfit`.

        Returns:
            The result; None if the kernel raised `Unfit` or failed.

        Raises:
            UsageError: The setting demands the kernel, and it raised `Unfit` or failed.
            torch.OutOfMemoryError: The kernel ran out of memory; the caller tries smaller tiles.
        """
        try:
            return kernel()
        except torch.OutOfMemoryError:
            raise
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
        """Return why no kernel can work for such values; "" if one can."""
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
    """Return True if Triton runs kernels in its interpreter, on a CPU and for tests."""
    try:
        import triton
    except ImportError:  # of one that is there, but lacks what it needs
        return False
    return not isinstance(triton.jit(_interpreted), triton.JITFunction)
