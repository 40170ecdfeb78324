"""Settings and wiring of the core's components. Imports neither torch nor numpy."""

from reidcore.builtin.settings.augmentations import Flip, PadCrop
from reidcore.builtin.settings.backbones import ResNet
from reidcore.builtin.settings.heads import BNNeck, Pool
from reidcore.builtin.settings.losses import Softmax, Triplet
from reidcore.builtin.settings.matchers import Cosine, Euclidean
from reidcore.builtin.settings.procedures import Train
from reidcore.builtin.settings.samplers import Identities, Shuffled

__all__ = [
    "BNNeck",
    "Cosine",
    "Euclidean",
    "Flip",
    "Identities",
    "PadCrop",
    "Pool",
    "ResNet",
    "Shuffled",
    "Softmax",
    "Train",
    "Triplet",
]
