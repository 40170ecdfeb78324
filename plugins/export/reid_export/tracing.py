"""Modules traced into programs of `torch.export`, with errors that name the part at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from reidcore.errors import UsageError
from reidcore.tools import DistanceModule, TemplateModule

QUERIES, GALLERY = 2, 3
"""Pictures while tracing. A batch of one would be fixed in the graph, and one number for both sides
might be taken for the same."""


def trace_templates(module: TemplateModule) -> ExportedProgram:
    """Return the program of pictures to templates, for any number of pictures.

    Raises UsageError naming the part that cannot be exported.
    """
    height, width = module.image
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (QUERIES, height, width, 3), dtype=torch.uint8, generator=draw)
    modality = torch.zeros(QUERIES, dtype=torch.int64)
    batch = {0: Dim("batch")}
    given = pictures, modality, modality - 1
    return _traced(_Widened(module), given, (batch, batch, batch), module.model)


class _Widened(nn.Module):
    """The same module; what it gives in bfloat16, which NumPy does not have, in float32."""

    def __init__(self, module: TemplateModule):
        super().__init__()
        self.module = module

    def forward(self, pictures: Tensor, modality: Tensor, camera: Tensor) -> dict[str, Tensor]:
        found = self.module(pictures, modality, camera)
        return {
            name: value.float() if value.dtype == torch.bfloat16 else value
            for name, value in found.items()
        }


def trace_distances(module: DistanceModule, specs: Mapping[str, Any]) -> ExportedProgram:
    """Return the program of two sides' templates to distances, for any numbers of pictures.

    specs: {name: shape and dtype} of templates. Raises UsageError as `trace_templates` does.
    """
    draw = torch.Generator().manual_seed(0)
    sides, shapes = [], []
    for count, name in ((QUERIES, "queries"), (GALLERY, "gallery")):
        sides.append(
            {
                key: torch.rand(count, *specs[key].shape, generator=draw).to(
                    getattr(torch, stored(specs[key].dtype))
                )
                for key in module.names
            }
        )
        dim = Dim(name)
        shapes.append({key: {0: dim} for key in module.names})
    return _traced(module, tuple(sides), tuple(shapes), module)


def stored(dtype: str) -> str:
    """Return the type in which graphs give and take templates of a type."""
    return "float32" if dtype == "bfloat16" else dtype


def _traced(
    module: nn.Module, given: tuple[Any, ...], shapes: tuple[Any, ...], parts: nn.Module
) -> ExportedProgram:
    with watched(parts) as watch, torch.no_grad():
        try:
            return torch.export.export(module.eval(), given, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever a part raises, and the tracer's own kinds
            raise _cannot_export(watch, error) from error


class Watch:
    """What is noted while a model is traced.

    Attributes:
        inside: The parts that compute, the innermost last.
        fixing: The first part after which the number of pictures was fixed.
    """

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.fixing = ""

    def noting(self, method: Callable[..., Any], role: str) -> Callable[..., Any]:
        """Return a part's method that notes its beginning and its end."""

        def noted(*given: Any, **named: Any) -> Any:
            self.inside.append(role)
            found = method(*given, **named)
            self.inside.pop()
            tensors = found.values() if isinstance(found, Mapping) else [found]
            if not self.fixing and any(_is_fixed(value) for value in tensors):
                self.fixing = role
            return found

        return noted


def _is_fixed(value: Any) -> bool:
    """Return True if a tensor's number of pictures can only be that of the pictures traced."""
    if not isinstance(value, Tensor) or not value.ndim:
        return False
    size: Any = value.shape[0]
    return isinstance(size, int) or size.node.maybe_as_int() is not None


def _cannot_export(watch: Watch, error: BaseException) -> UsageError:
    """Return the error for a part that cannot be exported, with torch's reason in one line."""
    if watch.inside or not watch.fixing:
        role, reason = (watch.inside or ["the run"])[-1], one_line(error)
        return UsageError(f"{role} cannot be exported: {reason}")
    return UsageError(
        f"{watch.fixing} cannot be exported: it fixes the number of pictures, so that the graph "
        "would take no other. A part asks is_exporting() of reidcore.modules and computes all "
        "at once then, and takes sizes from x.shape, never from len(x)"
    )


def one_line(error: BaseException) -> str:
    """Return what an error says in its first line, of at most 400 characters."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:400]}"


@contextmanager
def watched(parts: nn.Module) -> Iterator[Watch]:
    """Note the parts of a model, or of a ranking's distances, as they compute."""
    watch = Watch()
    changed: list[tuple[nn.Module, str]] = []
    for role, part in _roles(parts):
        for method in ("forward", "template", "merge", "distance"):
            if hasattr(part, method):
                setattr(part, method, watch.noting(getattr(part, method), role))
                changed.append((part, method))
    try:
        yield watch
    finally:
        for part, method in changed:
            delattr(part, method)


def _roles(parts: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(parts, DistanceModule):
        for share in parts.fusion.shares:
            yield f"matcher {share.name!r}", share.matcher
        return
    plan: Any = parts.plan
    used = {wired.part.role: wired for wired in plan.parts}
    roles: Any = parts.parts
    for role, part in roles():
        yield str(used[role].part) if role in used else role, part


def pair_bytes(program: ExportedProgram) -> int:
    """Return how much memory a program of distances takes for one pair: twice the largest tensor
    that has numbers for every pair, for what an operation reads and what it writes."""
    largest = 4
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and _of_pairs(value.shape):
            sizes = prod(size if isinstance(size, int) else size.node.hint for size in value.shape)
            largest = max(largest, sizes * value.element_size() // (QUERIES * GALLERY))
    return 2 * largest


def _of_pairs(shape: Sequence[Any]) -> bool:
    """Return True if both sides' numbers of pictures are in a tensor's shape."""
    free: set[Any] = set()
    for size in shape:
        if not isinstance(size, int):
            free |= size.node.expr.free_symbols
    return len(free) > 1
