"""Connects loaded parts: the features that each provides, and those that it reads. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from reidcore.contracts.component import Feature, Matching
from reidcore.contracts.given import Given
from reidcore.contracts.settings import LossName, MatcherName
from reidcore.errors import nearest
from reidcore.wiring.parts import LoadedParts, PartLoader
from reidcore.wiring.plan import Wired
from reidcore.wiring.references import FEATURE_KINDS, listing, provider_role, references, suggestion


def connect(loader: PartLoader, parts: LoadedParts, given: Given) -> tuple[LoadedParts, Given]:
    """Return the parts that fit those before them, and `given` with all features and matchers."""
    connector = Connector(loader, given)
    backbone, batch, procedure = parts.backbone, parts.batch, parts.procedure
    connected = LoadedParts(
        # In the order in which messages are given.
        backbone=connector.provide(backbone) if backbone is not None else None,
        heads=_fitting(connector.connect_head, parts.heads),
        matchers=_fitting(connector.connect_matcher, parts.matchers),
        batch=connector.connect_and_check(batch) if batch is not None else None,
        losses=_fitting(connector.connect_and_check, parts.losses),
        procedure=connector.connect_and_check(procedure) if procedure is not None else None,
        posts=_fitting(connector.connect_reads, parts.posts),
        augment=parts.augment,
    )
    return connected, connector.given


def _fitting(step: Callable[[Wired], Wired | None], parts: Iterable[Wired]) -> list[Wired]:
    return [found for part in parts if (found := step(part)) is not None]


class Connector:
    """Checks parts in turn; `given` has the features and matchers of those checked so far.

    A method notes the problem of a part that does not fit. It returns None where a name is wrong.
    """

    def __init__(self, loader: PartLoader, given: Given):
        self._loader = loader
        self._features: dict[str, Feature] = {}
        self._matchers: dict[str, Matching] = {}
        self.given = attrs.evolve(given, features=self._features, matchers=self._matchers)

    def provide(self, wired: Wired) -> Wired:
        """Return the part with its outputs, none if they cannot be known."""
        outputs = self._loader.call(wired, "outputs", self.given)
        if wired.part.role in self._loader.failed:
            return wired
        for name, feature in outputs.items():
            self._features[f"{wired.instance}.{name}"] = feature
        return attrs.evolve(wired, outputs=dict(outputs))

    def connect_reads(self, wired: Wired) -> Wired | None:
        """Return the part with the features that it reads."""
        reads = []
        sound = True
        for field, kind, name in references(wired.config):
            if kind is MatcherName:
                sound &= self._names_matcher(wired, field, name)
            elif kind is LossName:
                sound &= self._names_loss(wired, field, name)
            elif self._names_feature(wired, field, name, FEATURE_KINDS[kind]):
                reads.append((field, name))
            else:
                sound = False
        if not sound:
            self._loader.failed.add(wired.part.role)
            return None
        return attrs.evolve(wired, reads=tuple(reads))

    def connect_head(self, wired: Wired) -> Wired | None:
        """Return the head with the features that it reads and provides."""
        connected = self.connect_reads(wired)
        return self.provide(connected) if connected is not None else None

    def connect_matcher(self, wired: Wired) -> Wired | None:
        """Return the matcher with the features that it reads and what it promises."""
        connected = self.connect_reads(wired)
        if connected is None:
            return None
        matching: Any = self._loader.call(connected, "describe", self.given)
        if wired.part.role in self._loader.failed:
            return None
        self._matchers[wired.part.name] = matching
        return attrs.evolve(connected, matching=matching)

    def connect_and_check(self, wired: Wired) -> Wired | None:
        """Return a sampler, loss or procedure with the features that it reads."""
        connected = self.connect_reads(wired)
        if connected is not None:
            self._loader.call(connected, "check", self.given)
        return connected

    def _names_matcher(self, wired: Wired, field: str, name: str) -> bool:
        known = [other.name for other in self._loader.run.of("matcher")]
        if name not in known:
            text = f"names the matcher {name!r}{suggestion(name, known)}"
            self._loader.refuse(wired.part, field, text)
        return name in self._matchers  # if it is not, its own failure is reported

    def _names_loss(self, wired: Wired, field: str, name: str) -> bool:
        known = [other for other in self.given.losses if other != wired.part.name]
        if name not in known:
            text = f"names the loss {name!r}{suggestion(name, known)}"
            self._loader.refuse(wired.part, field, text)
        return name in known

    def _names_feature(self, wired: Wired, field: str, name: str, wanted: str) -> bool:
        """Return whether there is a feature of this name and kind; any kind if `wanted` is ""."""
        found = self._features.get(name)
        if found is not None and wanted in ("", found.kind):
            return True
        if found is None and provider_role(name) in self._loader.failed:
            return False  # that part's own failure is reported
        fitting = {
            key: feature for key, feature in self._features.items() if wanted in ("", feature.kind)
        }
        available = f"Available {wanted or 'feature'}s: {listing(fitting)}"
        if found is not None:
            text = f"needs a {wanted}, but {name!r} is a {found}. {available}"
        elif why := self._too_early(wired, name):
            text = f"names {name!r}, which {why}; heads run in file order"
        else:
            near = nearest(name, self._features) or "."
            text = f"names {name!r}, which nothing provides{near} {available}"
        self._loader.refuse(wired.part, field, text)
        return False

    def _too_early(self, wired: Wired, feature: str) -> str:
        """Return why a head cannot read a feature of its own or of a later head, "" if it is of
        neither."""
        part, instance = wired.part, feature.partition(".")[0]
        heads = [head.name for head in self._loader.run.of("head")]
        if part.where != "head" or instance not in heads[heads.index(part.name) :]:
            return ""
        return "is its own output" if instance == part.name else "is computed later"
