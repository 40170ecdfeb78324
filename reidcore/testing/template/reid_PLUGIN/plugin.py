"""What the plugin `PLUGIN` brings. The entry point names this module, which is imported whenever
plugins are listed: it and all that it imports do without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from reidcore.api import Command, Component, hookimpl

from reid_PLUGIN.settings_average import Average
from reid_PLUGIN.settings_cameras import Cameras
from reid_PLUGIN.settings_contrastive import Contrastive
from reid_PLUGIN.settings_elapsed import Elapsed
from reid_PLUGIN.settings_gem import GeM
from reid_PLUGIN.settings_pictures import Pictures
from reid_PLUGIN.settings_positions import Positions
from reid_PLUGIN.settings_shadow import Shadow
from reid_PLUGIN.settings_small import Small


def _text(name: str) -> str:
    """A run file of this package, in which components are tested."""
    return (resources.files("reid_PLUGIN") / name).read_text("utf-8")


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "small",
            Small,
            "reid_PLUGIN.small:build",
            summary="four convolutional stages",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "gem",
            GeM,
            "reid_PLUGIN.gem:build",
            summary="generalised-mean pooling with a learned exponent",
            paper="Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human "
            "Annotation, TPAMI 2019",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "contrastive",
            Contrastive,
            "reid_PLUGIN.contrastive:build",
            summary="pulls equal identities together, pushes others out of a margin",
            paper="Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant "
            "Mapping, CVPR 2006",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_matchers() -> Sequence[Component]:
    return [
        Component(
            "positions",
            Positions,
            "reid_PLUGIN.positions:build",
            summary="best cosines between the positions of two maps",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_postprocessors() -> Sequence[Component]:
    return [
        Component(
            "elapsed",
            Elapsed,
            "reid_PLUGIN.elapsed:build",
            summary="distances grow with the time between two pictures",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_procedures() -> Sequence[Component]:
    return [
        Component(
            "average",
            Average,
            "reid_PLUGIN.average:average",
            summary="plain training that ends with an average of the weights",
            paper="Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, "
            "SIAM Journal on Control and Optimization 1992",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_readers() -> Sequence[Component]:
    return [
        Component(
            "pictures",
            Pictures,
            summary="the folder that `reid data demo` draws, by its file names",
            sample=_text("runs/pictures.toml"),
        )
    ]


@hookimpl
def reid_samplers() -> Sequence[Component]:
    return [
        Component(
            "cameras",
            Cameras,
            "reid_PLUGIN.cameras:build",
            summary="batches whose identities are seen by different cameras",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_augmentations() -> Sequence[Component]:
    return [
        Component(
            "shadow",
            Shadow,
            "reid_PLUGIN.shadow:build",
            summary="darkens a picture from one side",
            sample=_text("sample.toml"),
        )
    ]


@hookimpl
def reid_commands() -> Sequence[Command]:
    return [
        Command(
            "COMMAND-best",
            "reid_PLUGIN.best:add_arguments",
            summary="tell which of several runs has the best score",
        )
    ]
