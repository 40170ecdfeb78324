"""What plugins register: the contract of the hooks, components by name, observers."""

from __future__ import annotations

import sys
import types
from typing import Any

import attrs
import pytest

from reidcore import hookspecs
from reidcore.api import Component, hookimpl, setting
from reidcore.errors import PluginError, UsageError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import KINDS, OBSERVERS, LoadedComponent, build_function


@attrs.frozen
class Config:
    """A config with the wiring method of every kind."""

    size: int = setting("some size", default=3, at_least=1)

    def outputs(self, given): ...
    def check(self, given): ...
    def describe(self, given): ...
    def batch(self): ...
    def facts(self): ...
    def rows(self, root): ...


def component(name: str = "part", config: Any = Config, **keys: Any) -> Component:
    return Component(name, config, **{"build": "package.module:function", **keys})


def namespace(**hooks: Any) -> types.SimpleNamespace:
    """A plugin whose hook `reid_x` returns what is given for `x`, or calls it if it can."""
    functions = {}
    for name, returned in hooks.items():

        def hook(returned=returned):
            return returned() if callable(returned) else returned

        hook.__name__ = f"reid_{name}"
        functions[hook.__name__] = hookimpl(hook)
    return types.SimpleNamespace(**functions)


def added(module: Any) -> Plugins:
    plugins = Plugins(found=[])
    plugins.add("toy", module)
    return plugins


REFUSED = {
    "unknown hook": (
        namespace(lossess=[]),
        "unknown hook 'reid_lossess', did you mean 'reid_losses'?",
    ),
    "unmarked hook": (
        types.SimpleNamespace(reid_heads=list),
        "reid_heads is not marked with reidcore.api.hookimpl",
    ),
    "no hook": (types.SimpleNamespace(), "no function marked with reidcore.api.hookimpl"),
    "wrapper": (
        types.SimpleNamespace(reid_heads=hookimpl(wrapper=True)(lambda: (yield))),
        "hook reid_heads is a wrapper",
    ),
    "argument": (
        types.SimpleNamespace(reid_heads=hookimpl(lambda given: [])),
        "hook reid_heads has no argument 'given'. It has none.",
    ),
    "argument of an observer": (
        types.SimpleNamespace(reid_epoch_ended=hookimpl(lambda run, score: None)),
        "no argument 'score', did you mean 'scores'? Its arguments are run, epoch, means, scores, ",
    ),
    "raises": (namespace(heads=lambda: 1 / 0), "reid_heads raised ZeroDivisionError: division"),
    "exits": (namespace(heads=sys.exit), "hook reid_heads raised SystemExit, at "),
    "nothing": (namespace(heads=None), "reid_heads returned a NoneType, not a list of components"),
    "one": (namespace(heads=component()), "reid_heads returned a Component, not a list"),
    "text": (namespace(heads="part"), "reid_heads returned a str, not a list"),
    "rubbish": (namespace(heads=[component(), 7]), "returned a list with an int"),
    "name": (namespace(heads=[component("Part-1")]), "does not match [a-z][a-z0-9_]*"),
    "config": (
        namespace(heads=[component(config=dict)]),
        "no attrs class: <class 'dict'>; write @attrs.frozen",
    ),
    "build": (namespace(heads=[component(build="module")]), "has build='module', not 'package."),
    "no build": (namespace(heads=[component(build="")]), "has build='', not 'package."),
    "two of a kind": (
        namespace(heads=[component(), component()]),
        "'toy.part' is registered twice, as a head and as a head",
    ),
    "two kinds": (
        namespace(heads=[component()], augmentations=[component()]),
        "'toy.part' is registered twice, as a head and as an augmentation",
    ),
}


class TestClassifying:
    @pytest.mark.parametrize("case", REFUSED)
    def test_refused(self, case):
        """What is not well formed makes its plugin unusable, and the message says what it is."""
        module, words = REFUSED[case]
        plugins = added(module)
        with pytest.raises(PluginError) as caught:
            plugins.load("toy")
        assert caught.value.exit_code == 3
        start = "plugin toy (reid-plugin-toy 0) breaks the contract of its hooks: "
        assert str(caught.value).startswith(start)
        assert words in str(caught.value)
        assert plugins.components(plugin=None) == plugins.components(plugin="core")

    @pytest.mark.parametrize("kind", [kind for kind, rule in KINDS.items() if rule.methods])
    def test_wiring_method(self, kind):
        """A config without its kind's wiring methods is refused, each missing one by name."""
        bare = attrs.make_class("Bare", [])
        hook = KINDS[kind].plural
        plugins = added(namespace(**{hook: [component(config=bare)]}))
        for method in KINDS[kind].methods:
            expected = f"{kind} 'toy.part' has a config Bare without the method {method}"
            assert expected in plugins.status("toy").message
        assert added(namespace(**{hook: [component()]})).status("toy").state == "ok"

    def test_reserved_key(self):
        """A setting cannot be called like a key of the core."""
        weighted = attrs.make_class("W", {"weight": attrs.field(default=1.0)}, bases=(Config,))
        head = added(namespace(heads=[component(config=weighted)]))
        loss = added(namespace(losses=[component(config=weighted)]))
        assert head.status("toy").state == "ok"
        assert "loss 'toy.part' has a setting 'weight'" in loss.status("toy").message

    def test_all_problems_at_once(self):
        """Every problem of a plugin's components is in one message."""
        wrong = [component("A"), component("b", build="x")]
        message = added(namespace(heads=wrong)).status("toy").message
        assert "head 'toy.A'" in message and "head 'toy.b'" in message

    def test_hooks_of_later_minor_versions(self):
        """A hook that this core lacks is accepted when the plugin marks it as optional."""
        module = namespace(heads=[component()])
        module.reid_exporters = hookimpl(optionalhook=True)(lambda: [])
        assert added(module).status("toy").state == "ok"

    def test_every_hook_has_a_kind_or_is_for_commands_or_an_observer(self):
        """The extension surface and the table of kinds cannot drift apart."""
        hooks = {name for name in vars(hookspecs) if name.startswith("reid_")}
        others = {"reid_commands", "reid_weights", "reid_observer_settings", *OBSERVERS}
        assert hooks == {rule.hook for rule in KINDS.values()} | others


class TestComponents:
    @pytest.fixture
    def plugins(self):
        return added(
            namespace(
                matchers=[component("pairs"), component("cosine")],
                heads=[component("neck"), component("old", deprecated="use toy.neck instead")],
            )
        )

    def test_found(self, plugins):
        """A component comes with its full name and where it is from."""
        found = plugins.component("matcher", "toy.pairs")
        assert (found.name, found.plugin, found.kind) == ("toy.pairs", "toy", "matcher")
        assert (found.distribution, found.version) == ("reid-plugin-toy", "0")
        assert found.component.config is Config

    def test_sorted_and_selected(self, plugins):
        """Components are listed by kind, then name, whatever order the plugin returned."""
        names = [one.name for one in plugins.components(plugin="toy")]
        assert names == ["toy.neck", "toy.old", "toy.cosine", "toy.pairs"]
        heads = plugins.components("head", "toy")
        assert [one.name for one in heads] == ["toy.neck", "toy.old"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "pairs",
                "use = 'pairs' is not of the form plugin.component, did you mean 'toy.pairs'?",
            ),
            ("a.b.c", "use = 'a.b.c' is not of the form plugin.component."),
            ("toy.", "use = 'toy.' is not of the form plugin.component."),
            (
                "toy.pair",
                "plugin 'toy' has no matcher 'pair', did you mean 'pairs'? "
                "Matchers of toy: toy.cosine, toy.pairs.",
            ),
            (
                "toy.neck",
                "'toy.neck' is a head, not a matcher. Matchers of toy: toy.cosine, toy.pairs.",
            ),
        ],
    )
    def test_wrong_names(self, plugins, name, message):
        """A name that fits nothing is a usage error that says what would fit."""
        plugins.load("toy")
        with pytest.raises(UsageError) as caught:
            plugins.component("matcher", name)
        assert str(caught.value) == message

    def test_deprecated(self, plugins):
        """Using a deprecated component warns in a way that users see by default."""
        with pytest.warns(FutureWarning, match=r"head toy\.old is deprecated: use toy\.neck"):
            plugins.component("head", "toy.old")

    def test_reader_is_its_own_config(self):
        """A reader needs no function to be built."""
        plugins = added(namespace(readers=[component(build="")]))
        reader = plugins.component("reader", "toy.part")
        assert isinstance(reader, LoadedComponent)
        assert build_function(reader)("config", None) == "config"


class TestObservers:
    @staticmethod
    def observer(name: str, seen: list[str]) -> types.SimpleNamespace:
        def reid_epoch_ended(epoch, means):
            seen.append(f"{name} {epoch} {means}")

        return types.SimpleNamespace(reid_epoch_ended=hookimpl(reid_epoch_ended))

    def test_listed_plugins_only_and_in_order(self):
        """Only observers that the run file lists are called, in its order."""
        seen: list[str] = []
        plugins = Plugins(found=[])
        for name in ("first", "second", "silent"):
            plugins.add(name, self.observer(name, seen))
        observers = plugins.observers(["second", "first"])
        observers.epoch_ended(run=None, epoch=3, means={}, scores=None, settings=None)
        observers.run_started(run=None, finished=0, settings=None)
        observers.run_ended(run=None, scores=None, settings=None)
        assert seen == ["second 3 {}", "first 3 {}"]

    def test_plugin_that_observes_nothing(self):
        """Listing a plugin without observers is refused, since it would do nothing."""
        with pytest.raises(UsageError, match="plugin 'toy' observes nothing"):
            added(namespace(heads=[component()])).observers(["toy"])
