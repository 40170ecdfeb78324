"""Settings and wiring of the core's components. Imports neither torch nor numpy."""

from reidcore.builtin.settings.augmentations import Erase, Flip, Grey, Jitter, Occlude, PadCrop
from reidcore.builtin.settings.backbones import VGG19BN, MobileNetV2, OSNet, ResNet
from reidcore.builtin.settings.distillation import (
    DistillDistances,
    DistillFeatures,
    DistillLogits,
)
from reidcore.builtin.settings.heads import BNNeck, Pool
from reidcore.builtin.settings.losses import ArcFace, Center, Circle, CosFace, Softmax, Triplet
from reidcore.builtin.settings.matchers import Cosine, Euclidean
from reidcore.builtin.settings.postprocessors import Expand, Rerank
from reidcore.builtin.settings.procedures import Train
from reidcore.builtin.settings.samplers import Identities, Shuffled, TwoModalities

__all__ = [
    "VGG19BN",
    "ArcFace",
    "BNNeck",
    "Center",
    "Circle",
    "CosFace",
    "Cosine",
    "DistillDistances",
    "DistillFeatures",
    "DistillLogits",
    "Erase",
    "Euclidean",
    "Expand",
    "Flip",
    "Grey",
    "Identities",
    "Jitter",
    "MobileNetV2",
    "OSNet",
    "Occlude",
    "PadCrop",
    "Pool",
    "Rerank",
    "ResNet",
    "Shuffled",
    "Softmax",
    "Train",
    "Triplet",
    "TwoModalities",
]
