"""The hooks by which plugins extend reidcore. Start reading here.

There is one hook for each kind of component, one for commands, one for published weights, three for
observers of a run and one for their settings.
A plugin is a distribution with an entry point in the group `reidcore.plugins.v1`, whose name is the
plugin's name and whose value is a torch-free module with some of these functions, marked with
`reidcore.api.hookimpl`. Each returns descriptors, `reidcore.api.Component` or `Command`. In run
files a component `x` of plugin `p` is `p.x`; a command `c` is `reid c`. Registration hooks take no
arguments, their order does not matter, and two components or commands of one name are an error.

Of each kind of component, "Wiring" names the methods of its settings class that the core calls
before torch is imported, and "Built" says what the function returns that the component's `build`
names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from reidcore.contracts.commands import Command
    from reidcore.contracts.component import Component
    from reidcore.contracts.published_weights import PublishedWeights
    from reidcore.contracts.run_interfaces import Run

hookspec = pluggy.HookspecMarker("reid")
GROUP = "reidcore.plugins.v1"


@hookspec
def reid_backbones() -> Sequence[Component]:  # type: ignore[empty-body]
    """Networks that turn pictures into named features.

    Wiring: `outputs(given) -> {stage: Feature}`. Built: `forward(images) -> {stage: Tensor}` with
    `images.pixels` [B, 3, H, W]. The instance is called `backbone`.
    """


@hookspec
def reid_heads() -> Sequence[Component]:  # type: ignore[empty-body]
    """Modules that turn named features into further ones, in file order.

    Wiring: `outputs(given) -> {name: Feature}`. Built: `forward(features, images) -> {name:
    Tensor}`; `features` is the flat dictionary of everything computed before. Never sees labels.
    """


@hookspec
def reid_losses() -> Sequence[Component]:  # type: ignore[empty-body]
    """Whatever needs labels or exists only in training; may own layers and buffers.

    Wiring: `check(given) -> None`. Built: `reidcore.modules.Loss`.
    """


@hookspec
def reid_matchers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Features to stored templates, and templates to distances, for vectors and for pairs.

    Wiring: `describe(given) -> Matching`. Built: `reidcore.modules.Matcher`.
    """


@hookspec
def reid_postprocessors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Changes to a finished distance matrix, with cameras and times.

    Wiring: `check(given) -> bool`, whether the result still lies in [0, 1]. Built: a callable
    `(distances [Q, G] float32, ranking) -> distances`; it may overwrite and return `distances` and
    changes nothing else.
    """


@hookspec
def reid_procedures() -> Sequence[Component]:  # type: ignore[empty-body]
    """The program that trains: plain training is `core.train`, another one an architecture search.

    Wiring: `check(given) -> None`. `build` names the procedure itself, a function called as
    `procedure(config, run)`, written against `reidcore.modules.Run` and nothing else.
    """


@hookspec
def reid_readers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Data sets on disk.

    The config itself is the reader: `facts() -> Facts`, or None where nothing is known without the
    data, and `rows(root) -> list[Row]`; `root` is the table's `root`, or what an optional
    `default_root()` returns. `build` is empty.
    """


@hookspec
def reid_samplers() -> Sequence[Component]:  # type: ignore[empty-body]
    """The order of training pictures.

    Wiring: `check(given) -> None`, `batch() -> BatchShape` and, where the last batch of an epoch
    may be smaller, `least(pictures) -> int`, the size of the smallest one. Built: an object with
    `epoch(rows, generator, ask) -> iterable of lists of indices`, `rows` being
    `reidcore.modules.Rows`, `generator` a `torch.Generator` that follows from seed and epoch, and
    `ask` a `reidcore.modules.Ask` for features and matchers' distances of the training pictures.
    An epoch's batches are all drawn before its first step, so that the workers that read ahead
    change nothing.
    """


@hookspec
def reid_augmentations() -> Sequence[Component]:  # type: ignore[empty-body]
    """Random changes to training pictures.

    No wiring. Built: a callable `(picture, generator) -> picture`; `picture` is uint8 [3, H, W] at
    the run's picture size, and all randomness comes from the `torch.Generator`.
    """


@hookspec
def reid_commands() -> Sequence[Command]:  # type: ignore[empty-body]
    """Commands of `reid`, such as `reid report`.

    A command names the function that adds its arguments to a parser and returns what runs it; it is
    imported only when the command is asked for. Commands are written against `reidcore.tools`.
    """


@hookspec
def reid_weights() -> Sequence[PublishedWeights]:  # type: ignore[empty-body]
    """Weights of third parties, for run files to start from: `weights = "PLUGIN:NAME"`.

    `reid run` fetches them when they are needed, checks their digest and tells their licence.
    """


@hookspec(firstresult=True)
def reid_observer_settings() -> type:  # type: ignore[empty-body]
    """Observer: the attrs class of the settings that a run file's table of the plugin's name holds.

    `[diary]` for a plugin `diary`. They are written with `reidcore.api.setting` and checked like
    those of components; the three hooks below get an instance as `settings`. Without this hook the
    plugin takes no table, and `settings` is None.
    """


@hookspec
def reid_run_started(run: Run, finished: int, settings: Any) -> None:
    """Observer: a run begins, 0 of whose epochs are `finished`, or goes on after so many.

    Observers act only if the run file's `plugins` lists their plugin. Of several processes that
    share a run the first alone calls them, so they must not ask it for what all compute together,
    such as `run.evaluate()`. One that raises harms no run: it gets no more events in this process,
    and what it lacks when the run is resumed. `reid check` calls all three, with `run.dry` true.
    """


@hookspec
def reid_epoch_ended(
    run: Run,
    epoch: int,
    means: Mapping[str, float],
    scores: Mapping[str, Any] | None,
    settings: Any,
) -> None:
    """Observer: an epoch, counted from 0, has ended and is saved.

    `scores` is None where it was not evaluated. After a kill the last epoch may come once more, and
    an epoch whose evaluation was killed, or failed, comes once it is evaluated.
    """


@hookspec
def reid_run_ended(run: Run, scores: Mapping[str, Any] | None, settings: Any) -> None:
    """Observer: the run is finished, with its last scores.

    One that was interrupted, or whose evaluation failed, has not ended: a resume ends it. A run
    that was finished before calls it only for an observer that has missed it.
    """


hookimpl = pluggy.HookimplMarker("reid")
"""Marks a plugin's hook functions (see `reidcore.hookspecs`)."""
