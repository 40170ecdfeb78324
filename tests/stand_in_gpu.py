"""A device that is not there: tensors that compute on the CPU, but must be treated as a GPU's.

    with StandIn() as gpu:
        model.to("cuda")                      # from here on its tensors belong to the device
        model(images.to("cuda"))              # raises where tensors of both devices meet
    gpu.waits                                 # where the host waited for the device

What belongs to the device is its memory: whatever shares it, such as views, parameters and what
autograd keeps, belongs to it too. Below autograd, each operation that takes tensors of the device
gives such tensors, and is refused if it takes others than single numbers besides, as on a GPU.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten.equal,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.unique_dim_consecutive,
}
"""Operations whose result, or its shape, the host has to wait for."""
CROSSING = {aten.copy_, aten._to_copy, aten.set_, aten.detach, aten.alias}
HERE = Path(__file__).name
STREAM = SimpleNamespace(device=DEVICE, record_event=lambda: True, wait_event=lambda event: None)
"""All there is to do happens at once, in order."""


class StandIn:
    """While entered, `device="cuda"` means the stand-in, on this thread.

    waits: {(operation, "file:line" of who asked): how often} of what makes the host wait for the
    device. room: bytes of the largest tensor that the device can hold; larger ones raise
    torch.OutOfMemoryError. free: bytes that it says are free.
    """

    def __init__(self, room: int | None = None, free: int = 1 << 33):
        self.waits: Counter[tuple[str, str]] = Counter()
        self.room, self.free = room, free
        self.refused = 0
        self._own: dict[int, StorageWeakRef] = {}

    def __enter__(self) -> StandIn:
        self._stack = ExitStack()
        base = torch._C.TensorBase
        for name, value in {
            "device": property(lambda t: DEVICE if self.has(t) else base.device.__get__(t)),
            "is_cuda": property(self.has),
            "is_cpu": property(lambda t: not self.has(t)),
            "get_device": lambda t: 0 if self.has(t) else -1,
            "numpy": lambda t, **options: self._numpy(t, **options),
            "tolist": lambda t: self._tolist(t),
            "pin_memory": lambda t, *_: t,
            "record_stream": lambda t, stream: None,
        }.items():
            self._stack.enter_context(patch.object(Tensor, name, value))
        for name, answer in {
            "device_count": 1,
            "get_device_name": "a stand-in",
            "max_memory_allocated": 0,
            "get_device_capability": (7, 0),  # too old for kernels that no CPU can run
            "mem_get_info": (self.free, 2 * self.free),
            "memory_reserved": 0,
            "memory_allocated": 0,
            "synchronize": None,
            "reset_peak_memory_stats": None,
            "Stream": STREAM,
            "current_stream": STREAM,
            "stream": nullcontext(),
        }.items():
            self._stack.enter_context(patch.object(torch.cuda, name, lambda *_, a=answer: a))
        for name in ("SGD", "Adam", "AdamW"):  # fused, they would round otherwise than on a CPU
            kind = getattr(torch.optim, name)
            self._stack.enter_context(
                patch.object(torch.optim, name, lambda *a, k=kind, fused=None, **n: k(*a, **n))
            )
        empty = torch.empty
        self._stack.enter_context(
            patch.object(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
        )
        parse = torch._C._nn._parse_to
        self._stack.enter_context(
            patch.object(torch._C._nn, "_parse_to", lambda *a, **k: parse(*self._named(a), **k))
        )
        self._stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        self._stack.enter_context(_Below(self))
        self._stack.enter_context(_Above(self))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor belongs to the device."""
        return torch._C.TensorBase.untyped_storage(tensor)._cdata in self._own

    def take(self, tensor: Tensor) -> Tensor:
        """Gives a fresh tensor's memory to the device."""
        storage = torch._C.TensorBase.untyped_storage(tensor)
        if storage._cdata in self._own:
            return tensor
        if self.room is not None and storage.nbytes() > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError(f"{storage.nbytes()} bytes, there are {self.room}")
        if len(self._own) > 20_000:
            self._own = {key: ref for key, ref in self._own.items() if not ref.expired()}
        # While a weak reference lives no other storage gets its address.
        self._own[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def _named(self, asked: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a module is moved to: by a tensor, to its device and type."""
        if asked and isinstance(asked[0], Tensor) and self.has(asked[0]):
            return DEVICE, asked[0].dtype, *asked[1:]
        return asked

    def waited(self, operation: str) -> None:
        self.waits[operation, caller()] += 1

    def _numpy(self, tensor: Tensor, **options: Any) -> Any:
        if self.has(tensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return torch._C.TensorBase.numpy(tensor, **options)

    def _tolist(self, tensor: Tensor) -> Any:
        if self.has(tensor):
            self.waited("tolist")
        return torch._C.TensorBase.tolist(tensor)


def caller() -> str:
    """The innermost place in the core or in a plugin that is being run, as package/file:line."""
    frame = sys._getframe(1)
    while frame is not None:
        # By names of modules: the folder of the project may be called as the package is.
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "reidcore" or package.startswith("reid_"):
            return f"{package}/{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class _Above(TorchFunctionMode):
    """Calls that name a device, before torch looks for it."""

    def __init__(self, gpu: StandIn):
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        asked = kwargs.get("device")
        if name == "to" and asked is None:
            asked = next((a for a in args[1:] if isinstance(a, str | torch.device | Tensor)), None)
            asked = asked.device if isinstance(asked, Tensor) else asked
        elif name in ("cpu", "cuda"):
            asked = name
        elif asked is None and name.startswith("new_") and self.gpu.has(args[0]):
            asked = DEVICE
        if name in ("__deepcopy__", "one_hot") and self.gpu.has(args[0]):
            # They make their result where torch thinks that the tensor is.
            with _disable_current_modes():
                return self.gpu.take(func(*args, **kwargs))
        kwargs.pop("pin_memory", None)
        if asked is None:
            return func(*args, **kwargs)
        there = torch.device(asked).type == "cuda"
        if name in ("to", "cpu", "cuda"):
            return self._moved(func, name, there, args, kwargs)
        if there and kwargs.get("generator") is not None:
            raise RuntimeError(f"{name}: a generator of the CPU draws nothing on {DEVICE}")
        kwargs["device"] = "cpu"
        result = func(*args, **kwargs)
        return self.gpu.take(result) if there and isinstance(result, Tensor) else result

    def _moved(self, func, name, there, args, kwargs):
        tensor = args[0]
        copy = kwargs.pop("copy", False)
        if name == "to":
            kwargs.pop("device", None)
            kwargs.pop("non_blocking", None)
            rest = [a.dtype if isinstance(a, Tensor) else a for a in args[1:]]
            rest = [a for a in rest if isinstance(a, torch.dtype)]
            if rest or kwargs:
                tensor = func(tensor, *rest, **kwargs)
        if self.gpu.has(tensor) == there and not copy:
            return tensor
        if not there:
            self.gpu.waited("copy to the host")
        return _Crossing.apply(tensor, self.gpu, there)


class _Crossing(torch.autograd.Function):
    """A copy on the other device, through which gradients go back."""

    @staticmethod
    def forward(ctx, tensor, gpu, there):
        ctx.gpu, ctx.back = gpu, gpu.has(tensor)
        return copied(tensor, gpu, there)

    @staticmethod
    def backward(ctx, gradient):
        return copied(gradient, ctx.gpu, ctx.back), None, None


def copied(tensor: Tensor, gpu: StandIn, there: bool) -> Tensor:
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        copy = tensor.detach().clone()
    return gpu.take(copy) if there else copy


class _Below(TorchDispatchMode):
    """Operations below autograd: what they take, and whose their results are."""

    def __init__(self, gpu: StandIn):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = func.overloadpacket
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in given if self.gpu.has(tensor)]
        if ours:
            self._check(func, kind, args, kwargs, given)
        result = func(*args, **kwargs)
        if ours and (kind not in CROSSING or self.gpu.has(args[0])):
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.gpu.take(leaf)
        return result

    def _check(self, func, kind, args, kwargs, given):
        has = self.gpu.has
        if kind in WAITING or _masks(kind, args) or _unsized(func, kwargs):
            self.gpu.waited(str(kind))
        if kind is aten.copy_:
            if has(args[1]) and not has(args[0]):
                self.gpu.waited("copy to the host")
            return
        if kind in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            # A GPU's tensor may be indexed by the host's places.
            given = [args[0], *(args[2:3] if kind is not aten.index else ())]
            if not has(args[0]):
                raise RuntimeError(f"{func}: indices are on {DEVICE}, what they index is on cpu")
        strangers = [tensor for tensor in given if not has(tensor) and tensor.ndim]
        if strangers:
            shapes = [("cuda" if has(t) else "cpu", list(t.shape)) for t in given]
            raise RuntimeError(f"{func}: expected all tensors to be on the same device: {shapes}")


def _masks(kind: Any, args: Any) -> bool:
    """Whether bool masks choose what to take, whose number is the result's shape."""
    if kind not in (aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _unsized(func: Any, kwargs: Any) -> bool:
    return func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
