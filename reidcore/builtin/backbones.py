"""Backbones of the core, made of `reidcore.networks`."""

from __future__ import annotations

from collections.abc import Iterable

from reidcore.builtin.settings.backbones import VGG19BN as VGG19BNSettings
from reidcore.builtin.settings.backbones import MobileNetV2 as MobileNetV2Settings
from reidcore.builtin.settings.backbones import OSNet as OSNetSettings
from reidcore.builtin.settings.backbones import ResNet as ResNetSettings
from reidcore.contracts.parts import Context
from reidcore.networks.common import StagedBackbone
from reidcore.networks.initial import initial_weights
from reidcore.networks.mobilenet import MobileNetV2
from reidcore.networks.osnet import OSNet
from reidcore.networks.resnet import ResNet
from reidcore.networks.vgg import VGG19BN
from reidcore.sizes import MOBILENET_V2_STAGES, OSNET_STAGES, RESNET_STAGES, VGG19_BN_BLOCKS


def _deepest(stages: Iterable[str], wanted: frozenset[str]) -> str:
    """Return the last stage that somebody reads, with which the network ends; else the first."""
    first, *others = stages
    return next((stage for stage in reversed(others) if stage in wanted), first)


def build_resnet(config: ResNetSettings, context: Context) -> StagedBackbone:
    network = ResNet(
        config.depth,
        config.last_stride,
        config.width,
        _deepest(RESNET_STAGES, context.wanted),
        config.norm,
        config.attention,
    )
    initial_weights(network, context, config.weights, config.allow, f"resnet{config.depth}")
    return StagedBackbone(network, context.wanted)


def build_osnet(config: OSNetSettings, context: Context) -> StagedBackbone:
    network = OSNet(config.width, _deepest(OSNET_STAGES, context.wanted))
    initial_weights(network, context, config.weights, config.allow)
    return StagedBackbone(network, context.wanted)


def build_mobilenet_v2(config: MobileNetV2Settings, context: Context) -> StagedBackbone:
    deepest = _deepest(MOBILENET_V2_STAGES, context.wanted)
    network = MobileNetV2(config.last_stride, config.width, deepest)
    initial_weights(network, context, config.weights, config.allow, "mobilenet_v2")
    return StagedBackbone(network, context.wanted)


def build_vgg19_bn(config: VGG19BNSettings, context: Context) -> StagedBackbone:
    network = VGG19BN(config.last_stride, config.width, _deepest(VGG19_BN_BLOCKS, context.wanted))
    initial_weights(network, context, config.weights, config.allow, "vgg19_bn")
    return StagedBackbone(network, context.wanted)
