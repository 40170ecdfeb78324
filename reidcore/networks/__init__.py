"""Networks that plugins build on, and functions that load published weights into them.

Every stage is an attribute, so that a plugin can copy, replace or split it; shapes without torch
are in `reidcore.sizes`.
"""

from reidcore.networks.checkpoints import read_weights
from reidcore.networks.common import Staged, StagedBackbone, init_convolutions
from reidcore.networks.initial import LoadReport, initial_weights, load_weights
from reidcore.networks.mobilenet import MobileNetV2
from reidcore.networks.osnet import OSNet
from reidcore.networks.resnet import (
    IBN,
    BasicBlock,
    Bottleneck,
    ResNet,
    SqueezeExcitation,
    resnet_stage,
)
from reidcore.networks.vgg import VGG19BN
from reidcore.sizes import (
    conv_size,
    mobilenet_v2_shapes,
    osnet_shapes,
    resnet_shapes,
    vgg19_bn_shapes,
)

__all__ = [
    "IBN",
    "VGG19BN",
    "BasicBlock",
    "Bottleneck",
    "LoadReport",
    "MobileNetV2",
    "OSNet",
    "ResNet",
    "SqueezeExcitation",
    "Staged",
    "StagedBackbone",
    "conv_size",
    "init_convolutions",
    "initial_weights",
    "load_weights",
    "mobilenet_v2_shapes",
    "osnet_shapes",
    "read_weights",
    "resnet_shapes",
    "resnet_stage",
    "vgg19_bn_shapes",
]
