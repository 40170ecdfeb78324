"""The plugin `wrong`: it loads, and then its parts break their contracts."""

from __future__ import annotations

import attrs

from reidcore.api import Component, hookimpl, setting


@attrs.frozen
class Raises:
    def outputs(self, given):
        return 1 / 0


@attrs.frozen
class Empty:
    def outputs(self, given):
        return {}


@attrs.frozen
class Untyped:
    size: Nowhere = setting("a type that cannot be found", default=1)  # noqa: F821

    def outputs(self, given):
        return {}


@attrs.frozen
class Vague:
    def describe(self, given):
        return "soon"


@attrs.frozen
class Unreadable:
    def facts(self):
        return {}["identities"]

    def rows(self, root):
        return [1 // 0]


def part(name, config):
    return Component(name, config, "wrong.parts:build")


@hookimpl
def reid_heads():
    return [part("raises", Raises), part("empty", Empty), part("untyped", Untyped)]


@hookimpl
def reid_matchers():
    return [part("vague", Vague)]


@hookimpl
def reid_readers():
    return [Component("unreadable", Unreadable)]
