"""Parts of a model whose calls torch compiles (`train.compile`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reidcore.errors import UsageError


def compiled(part: nn.Module, named: str) -> Callable[..., Any]:
    """Return a function that calls the part as torch compiles it, at the first call and again for
    each new kind of input.

    The part stays as it is, with the names of its weights. The function raises UsageError where the
    compiler fails.
    """
    call = torch.compile(part)
    from torch._dynamo.exc import TorchDynamoException  # is imported by now, which takes seconds

    def called(*given: Any) -> Any:
        try:
            return call(*given)
        except TorchDynamoException as error:
            said = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            raise UsageError(
                f"[train]: compile: torch could not compile {named}: {type(error).__name__}: "
                f"{said.strip()}. Set train.compile = false to train without, or see what torch's "
                "compiler needs, such as a C++ compiler"
            ) from error

    return called
