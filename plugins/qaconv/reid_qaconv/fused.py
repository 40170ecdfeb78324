"""When the scores of an evaluation come from the Triton kernel."""

from __future__ import annotations

import importlib.util
import warnings

import torch
from torch import Tensor

from reid_qaconv.settings_matching import Matcher as MatcherSettings
from reidcore.errors import UsageError


class Fused:
    """Follows the setting `fused` of the matcher `name`."""

    def __init__(self, config: MatcherSettings, name: str):
        self.setting = config.fused
        self.name = name
        self.operands: torch.dtype = getattr(torch, config.operands)
        self.failed = False

    def applies(self, maps: Tensor) -> bool:
        """Whether the kernel is to score maps of this type and device. Raises `UsageError` where
        the setting demands it and it cannot."""
        if self.setting == "never" or self.failed:
            return False
        obstacle = self._obstacle(maps)
        if obstacle and self.setting == "always":
            raise self._refusal(obstacle)
        return not obstacle

    def __call__(self, a: Tensor, b: Tensor, weights: Tensor) -> Tensor | None:
        """`kernel.weighted_matches`, or None if it failed, which is told once. Raises `UsageError`
        instead where the setting demands it."""
        try:
            # Not before it is used: triton is not everywhere, and takes a second to import.
            from reid_qaconv.kernel import weighted_matches

            return weighted_matches(a, b, weights, self.operands)
        except torch.OutOfMemoryError:
            raise  # The caller tries smaller tiles.
        except Exception as error:
            # Whatever compilers, drivers and devices come up with; plain torch needs none of them.
            first = next(iter(str(error).splitlines()), "")
            found = f"{type(error).__name__}: {first}".removesuffix(": ")
            if self.setting == "always":
                raise self._refusal(f"the kernel failed ({found})") from error
            self.failed = True
            warnings.warn(
                f"matcher {self.name!r} (qaconv.matcher): the fused kernel failed ({found}); plain "
                'torch computes its distances. fused = "never" leaves it out from the beginning.',
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _obstacle(self, maps: Tensor) -> str:
        """Why the kernel cannot work for such maps; empty if it can."""
        device = maps.device
        if device.type == "cpu" and self.setting == "auto":  # Triton's interpreter is for tests.
            return "the maps are on a CPU"
        if maps.dtype == torch.float64:
            return "the maps are float64 and the kernel adds in float32"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; it comes with torch's CUDA builds for Linux"
        if device.type == "cpu":
            from reid_qaconv.kernel import INTERPRETED

            return "" if INTERPRETED else "the maps are on a CPU and the kernel needs an NVIDIA GPU"
        if device.type != "cuda" or torch.version.hip:
            return f"the maps are on {device}, which is no NVIDIA GPU"
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            return (
                f"{torch.cuda.get_device_name(device)} has compute capability "
                f"{'.'.join(map(str, capability))} and the kernel needs 8.0"
            )
        return ""

    def _refusal(self, reason: str) -> UsageError:
        return UsageError(
            f'matcher {self.name!r} (qaconv.matcher): fused = "always", but {reason}. '
            'fused = "auto" uses plain torch there.'
        )
