"""The assembled model of a run: backbone, heads, matchers and losses by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidcore.errors import PluginError, ReidError, UsageError
from reidcore.modules import Batch, Context, Extract, Images, Loss, Matcher
from reidcore.plan import Plan, Wired
from reidcore.seeds import seed_all, seeded


def choose_device(name: str) -> torch.device:
    """auto is cuda if there is one, else cpu. Raises UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices; use "
            'device = "auto" or "cpu"'
        )
    return device


def in_role(role: str, path: str) -> bool:
    """Whether a role, such as head.neck, lies under a role path, such as head."""
    return role == path or role.startswith(path + ".")


class Model(nn.Module):
    """What a run trains and what ranks its gallery.

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
        self.plan = plan
        self.backbone = backbone
        # nn.ModuleDict refuses names such as `train` or `values`, so names are prefixed inside.
        for group, modules in (("head", heads), ("matcher", matchers), ("loss", losses)):
            for name, module in modules.items():
                self.add_module(f"{group}_{name}", module)
        self._names = {"head": list(heads), "matcher": list(matchers), "loss": list(losses)}
        self._weights = {wired.part.name: wired.part.weight for wired in plan.losses}
        self._frozen: tuple[str, ...] = ()

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
        """(role, module): backbone, head.NAME, matcher.NAME, loss.NAME."""
        yield "backbone", self.backbone
        for group in ("head", "matcher", "loss"):
            for name, module in self._group(group).items():
                yield f"{group}.{name}", module

    def sections(self) -> dict[str, dict[str, Tensor]]:
        """Every part's state by role."""
        return {role: dict(module.state_dict()) for role, module in self.parts()}

    def freeze_norms(self, roles: Sequence[str]) -> None:
        """Keeps the statistics of these roles' batch norms in training; their affine parameters
        still train."""
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

    def forward(self, images: Images) -> dict[str, Tensor]:
        """{`instance.output`: tensor [B, ...]} for every feature that somebody reads."""
        wanted = self.plan.wanted
        features: dict[str, Tensor] = {}
        outputs = self.backbone(images)
        for name in wanted["backbone"]:
            features[f"backbone.{name}"] = _output(outputs, name, self.plan.backbone)
        for wired, head in zip(self.plan.heads, self.heads.values(), strict=True):
            outputs = head(features, images)
            for name in wanted[wired.part.role]:
                features[f"{wired.part.name}.{name}"] = _output(outputs, name, wired)
        return features

    def loss(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all losses, and each loss and logged term, unweighted and detached,
        as `NAME` and `NAME.term`."""
        total: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            result = loss(features, batch)
            value, extra = result if isinstance(result, tuple) else (result, {})
            terms[name] = value.detach()
            for term, number in extra.items():
                terms[f"{name}.{term}"] = torch.as_tensor(number).detach()
            weighted = value * self._weights[name]
            total = weighted if total is None else total + weighted
        if total is None:
            raise ReidError("the run has no [[loss]] to train with")
        return total, terms

    def before_training(self, extract: Extract) -> None:
        for loss in self.losses.values():
            loss.before_training(extract)

    @torch.no_grad()
    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        detached = {name: value.detach() for name, value in features.items()}
        for loss in self.losses.values():
            loss.after_step(detached, batch)

    @torch.no_grad()
    def after_epoch(self, means: Mapping[str, float]) -> None:
        for loss in self.losses.values():
            loss.after_epoch(means)


def _output(outputs: Mapping[str, Tensor], name: str, wired: Wired) -> Tensor:
    try:
        return outputs[name]
    except KeyError:
        raise PluginError(
            f"{wired.part}: output {name!r} was declared but is not given; it gives "
            f"{', '.join(sorted(outputs)) or 'nothing'} "
            f"({wired.component.distribution} {wired.component.version})"
        ) from None


def context_of(plan: Plan, wired: Wired, matchers: Mapping[str, Matcher] | None = None) -> Context:
    """What the part's build function gets."""
    role = wired.part.role
    return Context(plan.given, wired.part.name, plan.wanted.get(role, ()), matchers)


def build_part(plan: Plan, wired: Wired, matchers: Mapping[str, Matcher] | None = None) -> Any:
    """Calls the part's build function; whatever it raises becomes an error naming the part."""
    try:
        return wired.build()(wired.config, context_of(plan, wired, matchers))
    except ReidError:
        raise
    except Exception as error:
        raise PluginError(
            f"{wired.part}: building it failed: {type(error).__name__}: {error} "
            f"({wired.component.distribution} {wired.component.version})"
        ) from error


def build_model(plan: Plan, seed: int) -> Model:
    """Builds every part. A part's initial weights follow from the seed and its role alone, so that
    adding another part changes nothing."""
    with seeded(seed, "build"):

        def build(wired: Wired, matchers: Mapping[str, Matcher] | None = None) -> Any:
            seed_all(seed, "build", wired.part.role)
            return build_part(plan, wired, matchers)

        backbone = build(plan.backbone)
        heads = {wired.part.name: build(wired) for wired in plan.heads}
        matchers = {wired.part.name: build(wired) for wired in plan.matchers}
        losses = {wired.part.name: build(wired, matchers) for wired in plan.losses}
    return Model(plan, backbone, heads, matchers, losses)
