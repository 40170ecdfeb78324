"""The assembled model of a run: backbone, heads, matchers and losses by role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidcore.contracts.parts import Extract, Loss, Matcher
from reidcore.contracts.pictures import Batch, Images
from reidcore.distributed.shared_batches import Lazy, SharedImages
from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.model.training_pairs import Pairs
from reidcore.support.wording import a_or_an
from reidcore.wiring.plan import Plan, Wired


def _images(given: object, network: nn.Module) -> Images:
    """Return pictures, or normalised pixels as pictures. Raises UsageError for what the network
    cannot take."""
    pixels = given.pixels if isinstance(given, Images) else given
    weight = next(network.parameters(), None)
    if weight is None and isinstance(given, Images):
        return given  # a stand-in for a network, which may take anything
    dtype = torch.float32 if weight is None else weight.dtype
    found = f"a {type(pixels).__name__}"
    if isinstance(pixels, Tensor):
        if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.dtype == dtype:
            return given if isinstance(given, Images) else Images(pixels)
        found = f"{_name(pixels.dtype)} {list(pixels.shape)}"
    raise UsageError(
        f"model(images) was given {found}, expected Images or a tensor, {_name(dtype)} "
        "[B, 3, H, W], of normalised pixels; images(pictures) of reidcore.load(run) makes them of "
        "any pictures"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_role(role: str, path: str) -> bool:
    """Return True if a role, such as head.neck, lies under a role path, such as head."""
    return role == path or role.startswith(path + ".")


def value_of_role(values: Mapping[str, float], role: str, default: float) -> float:
    """Return the value of the longest role path that holds the role."""
    paths = [path for path in values if in_role(role, path)]
    return values[max(paths, key=len)] if paths else default


class Model(nn.Module):
    """The network of a run with its matchers and losses.

    `model(images)` gives every wanted feature as `instance.output`. Matchers are in `matchers` by
    name, losses in `losses`; `parts()` lists everything with its role.
    """

    def __init__(
        self,
        plan: Plan,
        backbone: nn.Module,
        heads: Mapping[str, nn.Module],
        matchers: Mapping[str, Matcher],
        losses: Mapping[str, Loss],
    ):
        super().__init__()
        settings = plan.runfile.train
        self.plan = plan
        self.notes: list[str] = []
        """Lines for the user from building the parts."""
        self.backbone = backbone
        # nn.ModuleDict refuses names such as `train` or `values`, so names are prefixed inside.
        for group, modules in (("head", heads), ("matcher", matchers), ("loss", losses)):
            for name, module in modules.items():
                self.add_module(f"{group}_{name}", module)
        self._names = {"head": list(heads), "matcher": list(matchers), "loss": list(losses)}
        self._weights = {wired.part.name: wired.part.weight for wired in plan.losses}
        self._frozen: tuple[str, ...] = ()
        self.amp_device = "cuda" if settings.amp else ""
        """The type of device on which training is in mixed precision, "" for none."""
        convolutions = [part for part in self.modules() if isinstance(part, nn.Conv2d)]
        self.channels_last = settings.channels_last
        if self.channels_last and any(_unsafe_channels_last(part) for part in convolutions):
            self.channels_last = False
            self.notes.append(
                "train.channels_last is left off: torch's CPU kernels corrupt memory in 1x1 "
                "convolutions that stride over fewer than 8 channels, which this network has"
            )
        if self.channels_last:
            for part in convolutions:
                part.to(memory_format=torch.channels_last)
        self.compiles = settings.compile
        """True if training calls backbone and heads as torch has compiled them."""
        self._compiled: dict[str, Callable[..., Any]] = {}
        self.pairs: dict[str, Pairs] = {}
        """Distances of training pairs by matcher, for scales that are fitted on them."""
        self.stale_pairs: dict[str, str] = {}
        """Matchers whose pairs were measured under other settings than the plan's, and which."""

    def _group(self, group: str) -> dict[str, Any]:
        return {name: getattr(self, f"{group}_{name}") for name in self._names[group]}

    @property
    def heads(self) -> dict[str, nn.Module]:
        return self._group("head")

    @property
    def matchers(self) -> dict[str, Matcher]:
        return self._group("matcher")

    @property
    def losses(self) -> dict[str, Loss]:
        return self._group("loss")

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield (role, module) of every part: backbone, head.NAME, matcher.NAME, loss.NAME."""
        yield "backbone", self.backbone
        for group in ("head", "matcher", "loss"):
            for name, module in self._group(group).items():
                yield f"{group}.{name}", module

    @property
    def feature_names(self) -> list[str]:
        """The full name, `instance.output`, of every feature that a part reads, sorted."""
        parts = (self.plan.backbone, *self.plan.heads)
        return sorted(
            f"{wired.part.name or 'backbone'}.{output}"
            for wired in parts
            for output in self.plan.wanted[wired.part.role]
        )

    def sections(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of every part by role, and the training pairs as `pairs.MATCHER`."""
        states = {role: dict(module.state_dict()) for role, module in self.parts()}
        return states | {f"pairs.{name}": found.state() for name, found in self.pairs.items()}

    def freeze_norms(self, roles: Sequence[str]) -> None:
        """Keep the statistics of these roles' batch norms as they are in training; their affine
        parameters still train."""
        self._frozen = tuple(roles)
        self.train(self.training)

    def train(self, mode: bool = True) -> Model:
        super().train(mode)
        if mode:
            for role, module in self.parts():
                if any(in_role(role, path) for path in self._frozen):
                    for part in module.modules():
                        if isinstance(part, _BatchNorm):
                            part.eval()
        return self

    def _autocast(self) -> AbstractContextManager[Any]:
        """Return the context that training computes in: bfloat16 where torch holds it safe, if the
        run asks for mixed precision and the device has it. Evaluation stays float32."""
        if self.training and self.device.type == self.amp_device:
            return torch.autocast(self.amp_device, torch.bfloat16)
        return nullcontext()

    def _laid_out(self, images: Images) -> Images:
        """Return the images with their pixels in the convolutions' memory format."""
        if not self.channels_last:
            return images
        pixels = images.pixels.contiguous(memory_format=torch.channels_last)
        return Images(pixels, images.modality, images.camera)

    def forward(self, images: Images | Tensor) -> Mapping[str, Tensor]:
        """Return every feature that a part reads, {`instance.output`: tensor [B, ...]}, in float32;
        in mixed precision heads read each other's features as they are.

        images: pictures, or the pixels alone, [B, 3, H, W] in the dtype of the weights, normalised
        as the run file says, of the first modality and unknown cameras. Raises UsageError for
        anything else.

        Of a training batch that several processes share, each process makes the features of its
        own pictures. Those of all pictures are gathered, with gradient, where they are read.
        """
        if isinstance(images, SharedImages):
            with images.forward_pass() as own:
                made = self._computed(own)
            return Lazy(made, lambda name: images.division.whole(made[name]))
        return self._computed(_images(images, self.backbone))

    def _computed(self, images: Images) -> dict[str, Tensor]:
        """Return the features of pictures that are all computed in this process."""
        with self._autocast() if self.training else float32_convolutions():
            features = self._features(self._laid_out(images))
        return {name: _in_float32(value) for name, value in features.items()}

    def _features(self, images: Images) -> dict[str, Tensor]:
        wanted = self.plan.wanted
        features: dict[str, Tensor] = {}
        outputs = self.call(self.plan.backbone, self.backbone)(images)
        for name in wanted["backbone"]:
            features[f"backbone.{name}"] = _output(outputs, name, self.plan.backbone)
        for wired, head in zip(self.plan.heads, self.heads.values(), strict=True):
            outputs = self.call(wired, head)(features, images)
            for name in wanted[wired.part.role]:
                features[f"{wired.part.name}.{name}"] = _output(outputs, name, wired)
        return features

    def call(self, wired: Wired, part: nn.Module) -> Callable[..., Any]:
        """Return the part to call, or in training its compiled call where the run asks for that."""
        if not (self.compiles and self.training):
            return part
        role = wired.part.role
        if role not in self._compiled:
            from reidcore.model.compiling import compiled

            self._compiled[role] = compiled(part, str(wired.part))
        return self._compiled[role]

    def loss(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of all losses, and each loss and logged term, unweighted and
        detached, as `NAME` and `NAME.term`."""
        total: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            with self._autocast():
                result = loss(features, batch)
            value, extra = result if isinstance(result, tuple) else (result, {})
            value = _in_float32(value)
            terms[name] = value.detach()
            for term, number in extra.items():
                terms[f"{name}.{term}"] = torch.as_tensor(number).detach()
            weighted = value * self._weights[name]
            total = weighted if total is None else total + weighted
        if total is None:
            raise ReidError("the run has no [[loss]] to train with")
        return total, terms

    def before_training(self, extract: Extract) -> None:
        """Call every loss's `before_training`."""
        for loss in self.losses.values():
            loss.before_training(extract)

    @torch.no_grad()
    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        """Call every loss's `after_step`, with the features detached."""
        detached = Lazy(features, lambda name: features[name].detach())
        for loss in self.losses.values():
            loss.after_step(detached, batch)

    @torch.no_grad()
    def after_epoch(self, means: Mapping[str, float]) -> None:
        """Call every loss's `after_epoch`."""
        for loss in self.losses.values():
            loss.after_epoch(means)


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Keep convolutions from computing in TF32, as torch lets them on recent GPUs: its 10 bits
    would make other features, and now and then another order, than a CPU's."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _in_float32(value: Tensor) -> Tensor:
    """Return in float32 what autocast made half; everything else as it is."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def _unsafe_channels_last(part: nn.Conv2d) -> bool:
    # Seen in torch 2.15 with 2 to 4 input channels: the heap is overwritten in the backward pass.
    return part.kernel_size == (1, 1) and part.stride != (1, 1) and part.in_channels < 8


def _output(outputs: Mapping[str, Tensor], name: str, wired: Wired) -> Tensor:
    """Return one of the outputs of a part. Raises PluginError if it is not there."""
    owner = f"({wired.owner})"
    if not isinstance(outputs, Mapping):
        found = "nothing" if outputs is None else a_or_an(type(outputs).__name__)
        raise PluginError(
            f"{wired.part}: forward returned {found}, expected a dictionary of tensors; "
            f"return {{{name!r}: ...}} {owner}"
        )
    if name not in outputs:
        raise PluginError(
            f"{wired.part}: output {name!r} was declared but is not given; it gives "
            f"{', '.join(sorted(map(str, outputs))) or 'nothing'} {owner}"
        )
    if not isinstance(outputs[name], Tensor):
        found = a_or_an(type(outputs[name]).__name__)
        raise PluginError(f"{wired.part}: output {name!r} is {found}, expected a tensor {owner}")
    # Contiguous, so that no part has to know whether the one before it was channels-last.
    return outputs[name].contiguous()
