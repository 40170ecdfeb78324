"""timm's models as backbones, from random or from published weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from reid_timm.models import as_maps, feature_network, on_meta, stage_name, whole_model
from reid_timm.settings import PRETRAINED, FeaturesSettings
from reidcore.errors import DataError
from reidcore.modules import Context, Images
from reidcore.networks import load_weights, read_weights


class Features(nn.Module):
    """The stages of a model of timm that somebody reads: {stage: [B, C, h, w]}."""

    def __init__(self, network: nn.Module, stages: list[str]):
        super().__init__()
        self.network = network
        self.stages = stages

    def forward(self, images: Images) -> dict[str, Tensor]:
        maps = as_maps(self.network, self.network(images.pixels))
        return dict(zip(self.stages, maps, strict=True))


class _Names:
    """Names of a model's tensors in timm's checkpoints, and in its feature network, which has fewer
    tensors and calls some of them otherwise."""

    def __init__(self, whole: nn.Module, network: nn.Module):
        self.own = network.state_dict()
        self.mine: dict[str, str | None] = {}
        self.published: dict[str, str] = {}
        for key in whole.state_dict():
            # timm's feature networks keep a model whole, or take its stages out of their sequence.
            forms = (key, f"model.{key}", f"body.{key}", key.replace(".", "_", 1))
            self.mine[key] = next((form for form in forms if form in self.own), None)
            self.published |= {form: self.published.get(form, key) for form in forms} | {key: key}

    def of(self, key: str) -> str | None:
        """The network's name of a checkpoint's key; None for classifiers and stages that are not
        built; a key that the model does not have stays as it is."""
        return self.mine.get(key, key)

    def fit(self, state: Mapping[str, Tensor]) -> bool:
        """Return True if the state has all that the network needs, in the right shapes."""
        return all(
            key in state and state[key].shape == self.own[mine].shape
            for key, mine in self.mine.items()
            if mine is not None
        )


def _converted(
    state: Mapping[str, Tensor], whole: nn.Module, names: _Names
) -> Mapping[str, Tensor]:
    """A checkpoint under timm's names, for this model's picture size.

    The modules of timm's architectures have a function that renames what their authors published
    and resizes position embeddings; it is called where the checkpoint does not fit as it is.
    """
    state = {names.published.get(key, key): value for key, value in state.items()}
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is None or names.fit(state):
        return state
    try:
        return convert(state, whole)
    except Exception:  # on other networks' tensors it may do anything; loading says what is wrong
        return state


def _published(config: FeaturesSettings, context: Context) -> tuple[Mapping[str, Tensor], str]:
    """timm's weights of the model for this picture size, downloaded and kept by timm, and what to
    call them."""
    source = get_pretrained_cfg(config.model)
    assert source is not None  # `check_model` has found weights
    name = f"{config.model.partition('.')[0]}.{source.tag}"
    try:
        return whole_model(config, context.image, pretrained=True).state_dict(), name
    except Exception as error:  # of the network, of the hub, of the disk, or of the file itself
        where = f"https://huggingface.co/{source.hf_hub_id}" if source.hf_hub_id else source.url
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")
        raise DataError(
            f"timm could not get its weights {name} from {where}: {reason}. "
            "Download the file there (model.safetensors) where there is a network, and give its "
            "path as weights."
        ) from error


def _initialise(network: nn.Module, config: FeaturesSettings, context: Context) -> None:
    """Gives the network the weights that its settings name, as `reidcore.networks` does."""
    source = context.weights("weights", config.weights, PRETRAINED)
    if not source:
        return
    if context.initial != "need":
        absent = ""
        if source == PRETRAINED:
            absent = f"a run gets timm's weights of {config.model}"
        elif not Path(source).is_file():
            absent = f"weights not found at {source}"
        if absent:
            context.say(f"{absent}; the dry run uses random ones")
            return
    whole = on_meta(lambda: whole_model(config, context.image))
    names = _Names(whole, network)
    if source == PRETRAINED:
        state, name = _published(config, context)
    else:
        state, name = _converted(read_weights(source), whole, names), source
    context.say(str(load_weights(network, state, names.of, config.allow, name)))


def build_features(config: FeaturesSettings, context: Context) -> Features:
    wanted = sorted(int(stage.removeprefix("layer")) - 1 for stage in context.wanted) or [0]
    network = feature_network(config, context.image, wanted)
    _initialise(network, config, context)
    return Features(network, [stage_name(index) for index in wanted])
