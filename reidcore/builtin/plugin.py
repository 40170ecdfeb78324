"""Hooks of the plugin `core`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.builtin import settings
from reidcore.builtin.readers.cuhk03_np import CUHK03NP
from reidcore.builtin.readers.demo import Demo
from reidcore.builtin.readers.duke import DukeMTMC
from reidcore.builtin.readers.market import Market1501
from reidcore.builtin.readers.msmt17 import MSMT17
from reidcore.builtin.readers.regdb import RegDB
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.builtin.readers.vehicleid import VehicleID
from reidcore.builtin.readers.veri776 import VeRi776
from reidcore.contracts.component import Component
from reidcore.hookspecs import hookimpl

_DEMO = '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }'
_TWO_MODALITIES = (
    '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8, '
    "infrared_cameras = 2 }"
)
_IDENTITIES = '{ use = "core.identities", ids = 2, per_id = 2 }'
_RESNET = """\
use = "core.resnet"
depth = 18
width = 0.125
"""
_BNNECK = """
[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"
"""
_COSINE = """
[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]
"""
_SOFTMAX = """
[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]
"""
_TRIPLET = """
[[loss]]
name = "triplet"
use = "core.triplet"
feature = "neck.pooled"
"""
_ARCFACE = """
[[loss]]
name = "arcface"
use = "core.arcface"
feature = "neck.bn"
"""
_CIRCLE = """
[[loss]]
name = "circle"
use = "core.circle"
feature = "neck.pooled"

[[loss]]
name = "pairs"
use = "core.circle"
feature = "neck.pooled"
form = "pair"
"""
_CENTER = """
[[loss]]
name = "center"
use = "core.center"
feature = "neck.pooled"
weight = 0.003
"""
_RERANK = """
[[post]]
name = "rerank"
use = "core.rerank"
k1 = 4
k2 = 2
"""
_EXPAND = """
[[post]]
name = "expand"
use = "core.expand"
top = 2
"""


def _sample(
    head: str = _BNNECK,
    matcher: str = _COSINE,
    loss: str = _SOFTMAX,
    batch: str = _IDENTITIES,
    augment: str = "",
    post: str = "",
    data: str = _DEMO,
    backbone: str = _RESNET,
) -> str:
    """A small run, by default on the demo data, as a complete run file."""
    return f"""\
format = 1

[data]
train = {data}
test = [{data}]
image = [64, 32]
augment = [{augment}]
batch = {batch}

[backbone]
{backbone}{head}{matcher}{loss}{post}
[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "resnet",
            settings.ResNet,
            "reidcore.builtin.backbones:build_resnet",
            "ResNet without its classifier: stem and layer1 to layer4",
            "He et al., Deep Residual Learning for Image Recognition, CVPR 2016; norm = ibn_a, "
            "ibn_b: Pan et al., Two at Once, ECCV 2018; attention = se: Hu et al., "
            "Squeeze-and-Excitation Networks, CVPR 2018",
            _sample(),
        ),
        Component(
            "osnet",
            settings.OSNet,
            "reidcore.builtin.backbones:build_osnet",
            "OSNet without its classifier: stem, layer1 to layer4 (published as conv1 to conv5, "
            "each with the pooling after it) and the vector fc",
            "Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019",
            _sample(
                head=_BNNECK.replace("layer4", "fc"),
                backbone='use = "core.osnet"\nwidth = 0.25\n',
            ),
        ),
        Component(
            "mobilenet_v2",
            settings.MobileNetV2,
            "reidcore.builtin.backbones:build_mobilenet_v2",
            "MobileNetV2 without its classifier: stem and layer1 to layer4, whose map has 1280 "
            "channels, at a ResNet's strides from layer1 on",
            "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
            _sample(backbone='use = "core.mobilenet_v2"\nwidth = 0.25\n'),
        ),
        Component(
            "vgg19_bn",
            settings.VGG19BN,
            "reidcore.builtin.backbones:build_vgg19_bn",
            "VGG-19 with batch norm, without its classifier: stem and layer1 to layer4, one block "
            "of convolutions each, at a ResNet's strides from layer1 on",
            "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image "
            "Recognition, ICLR 2015",
            _sample(backbone='use = "core.vgg19_bn"\nwidth = 0.125\n'),
        ),
    ]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "pool",
            settings.Pool,
            "reidcore.builtin.heads:build_pool",
            "a map pooled to a vector: average, maximum or generalised mean",
            "Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI "
            "2019 (generalised mean)",
            _sample(
                head=_BNNECK.replace("bnneck", "pool"),
                matcher=_COSINE.replace(".bn", ".vector"),
                loss=_SOFTMAX.replace(".bn", ".vector"),
            ),
        ),
        Component(
            "bnneck",
            settings.BNNeck,
            "reidcore.builtin.heads:build_bnneck",
            "a vector before (pooled) and after (bn) batch normalisation",
            "Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification, "
            "CVPRW 2019",
            _sample(),
        ),
    ]


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "softmax",
            settings.Softmax,
            "reidcore.builtin.losses:build_softmax",
            "cross-entropy of one linear classifier over the training identities",
            "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 "
            "(label smoothing)",
            _sample(),
        ),
        Component(
            "triplet",
            settings.Triplet,
            "reidcore.builtin.losses:build_triplet",
            "triplet loss of a batch's hardest pairs, or of weighted ones, on a feature or on a "
            "matcher's distance",
            "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017; "
            "mining = weighted: Ye et al., Deep Learning for Person Re-identification: A Survey "
            "and Outlook, TPAMI 2022",
            _sample(loss=_TRIPLET + _SOFTMAX),
        ),
        Component(
            "arcface",
            settings.ArcFace,
            "reidcore.builtin.margin_losses:build_arcface",
            "cross-entropy of scaled cosines with an additive angular margin",
            "Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR "
            "2019",
            _sample(loss=_ARCFACE),
        ),
        Component(
            "cosface",
            settings.CosFace,
            "reidcore.builtin.margin_losses:build_cosface",
            "cross-entropy of scaled cosines with an additive margin on the cosine",
            "Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018",
            _sample(loss=_ARCFACE.replace("arcface", "cosface")),
        ),
        Component(
            "circle",
            settings.Circle,
            "reidcore.builtin.margin_losses:build_circle",
            "cosines weighted by how far they are from their optimum, of classes or of pairs",
            "Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR "
            "2020",
            _sample(loss=_CIRCLE),
        ),
        Component(
            "center",
            settings.Center,
            "reidcore.builtin.losses:build_center",
            "half the squared distance of a vector from its identity's center",
            "Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, "
            "ECCV 2016",
            _sample(loss=_SOFTMAX + _CENTER),
        ),
    ]


@hookimpl
def reid_matchers() -> Sequence[Component]:
    return [
        Component(
            "cosine",
            settings.Cosine,
            "reidcore.builtin.matchers:build_cosine",
            "(1 - cos) / 2 of concatenated vectors, in [0, 1]",
            sample=_sample(),
        ),
        Component(
            "euclidean",
            settings.Euclidean,
            "reidcore.builtin.matchers:build_euclidean",
            "Euclidean distance of concatenated vectors, or its square",
            sample=_sample(matcher=_COSINE.replace("cosine", "euclidean")),
        ),
    ]


@hookimpl
def reid_postprocessors() -> Sequence[Component]:
    return [
        Component(
            "rerank",
            settings.Rerank,
            "reidcore.builtin.postprocessors:build_rerank",
            "k-reciprocal re-ranking",
            "Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR "
            "2017",
            _sample(post=_RERANK),
        ),
        Component(
            "expand",
            settings.Expand,
            "reidcore.builtin.query_expansion:build_expand",
            "average query expansion: queries merged with their nearest gallery pictures",
            "Chum et al., Total Recall: Automatic Query Expansion with a Generative Feature Model "
            "for Object Retrieval, ICCV 2007",
            _sample(post=_EXPAND),
        ),
    ]


@hookimpl
def reid_procedures() -> Sequence[Component]:
    return [
        Component(
            "train",
            settings.Train,
            "reidcore.training.plain:train",
            "plain training: every loss on every batch",
            sample=_sample(),
        )
    ]


@hookimpl
def reid_readers() -> Sequence[Component]:
    return [
        Component(
            "demo",
            Demo,
            summary="drawn walkers in a network of cameras, written on first use",
            sample=_sample(),
        ),
        Component(
            "market1501",
            Market1501,
            "",
            "Market-1501: 1,501 people, six cameras, with times",
            "Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
            _sample(data='{ read = "core.market1501", root = "Market-1501-v15.09.15" }'),
        ),
        Component(
            "dukemtmc",
            DukeMTMC,
            "",
            "DukeMTMC-reID: 1,812 people, eight cameras, with times; withdrawn by its owners",
            "Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera "
            "Tracking, ECCVW 2016; Zheng et al., Unlabeled Samples Generated by GAN Improve the "
            "Person Re-identification Baseline in vitro, ICCV 2017",
            _sample(data='{ read = "core.dukemtmc", root = "DukeMTMC-reID" }'),
        ),
        Component(
            "msmt17",
            MSMT17,
            "",
            "MSMT17, version 1 or 2: 4,101 people, fifteen cameras",
            "Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-Identification, "
            "CVPR 2018",
            _sample(data='{ read = "core.msmt17", root = "MSMT17_V1" }'),
        ),
        Component(
            "cuhk03_np",
            CUHK03NP,
            "",
            "CUHK03-NP: 1,467 people, two views, detected or labeled boxes",
            "Li et al., DeepReID, CVPR 2014; split: Zhong et al., Re-ranking Person "
            "Re-identification with k-reciprocal Encoding, CVPR 2017",
            _sample(data='{ read = "core.cuhk03_np", root = "cuhk03-np", boxes = "detected" }'),
        ),
        Component(
            "veri776",
            VeRi776,
            "",
            "VeRi-776: 776 vehicles, twenty cameras",
            "Liu et al., A Deep Learning-Based Approach to Progressive Vehicle Re-identification "
            "for Urban Surveillance, ECCV 2016",
            _sample(data='{ read = "core.veri776", root = "VeRi" }'),
        ),
        Component(
            "sysu_mm01",
            SYSUMM01,
            "",
            "SYSU-MM01: 491 people, four visible and two near-infrared cameras; scored by the "
            "protocol sysu",
            "Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017",
            _sample(data='{ read = "core.sysu_mm01", root = "SYSU-MM01" }'),
        ),
        Component(
            "regdb",
            RegDB,
            "",
            "RegDB: 412 people, a visible and a thermal camera; scored by the protocol regdb",
            "Nguyen et al., Person Recognition System Based on a Combination of Body Images from "
            "Visible Light and Thermal Cameras, Sensors 2017",
            _sample(data='{ read = "core.regdb", root = "RegDB" }'),
        ),
        Component(
            "vehicleid",
            VehicleID,
            "",
            "VehicleID: 13,164 vehicles to train on, no cameras; scored by the protocol vehicleid",
            "Liu et al., Deep Relative Distance Learning: Tell the Difference Between Similar "
            "Vehicles, CVPR 2016",
            _sample(data='{ read = "core.vehicleid", root = "VehicleID_V1.0" }'),
        ),
    ]


@hookimpl
def reid_samplers() -> Sequence[Component]:
    return [
        Component(
            "shuffled",
            settings.Shuffled,
            "reidcore.builtin.samplers:build_shuffled",
            "every picture once an epoch, in random order",
            sample=_sample(batch='{ use = "core.shuffled", size = 8 }'),
        ),
        Component(
            "identities",
            settings.Identities,
            "reidcore.builtin.samplers:build_identities",
            "batches of so many identities with so many pictures each",
            "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017",
            _sample(),
        ),
        Component(
            "two_modalities",
            settings.TwoModalities,
            "reidcore.builtin.samplers:build_two_modalities",
            "batches of so many identities with so many pictures each from both modalities; the "
            "first half of a batch is of one modality, the second shows the same identities in the "
            "other",
            "Ye et al., Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person "
            "Re-identification, ECCV 2020",
            _sample(
                batch='{ use = "core.two_modalities", ids = 2, per_id = 2 }', data=_TWO_MODALITIES
            ),
        ),
    ]


@hookimpl
def reid_augmentations() -> Sequence[Component]:
    return [
        Component(
            "flip",
            settings.Flip,
            "reidcore.builtin.augmentations:build_flip",
            "mirrors left and right",
            sample=_sample(augment='{ use = "core.flip" }'),
        ),
        Component(
            "pad_crop",
            settings.PadCrop,
            "reidcore.builtin.augmentations:build_pad_crop",
            "pads all sides and crops at a random place to the size before",
            sample=_sample(augment='{ use = "core.pad_crop", pad = 4 }'),
        ),
        Component(
            "erase",
            settings.Erase,
            "reidcore.builtin.augmentations:build_erase",
            "random erasing: fills a random rectangle",
            "Zhong et al., Random Erasing Data Augmentation, AAAI 2020",
            _sample(augment='{ use = "core.erase" }'),
        ),
        Component(
            "occlude",
            settings.Occlude,
            "reidcore.builtin.augmentations:build_occlude",
            "random occlusion: fills a random square",
            "Liao and Shao, Interpretable and Generalizable Person Re-identification with "
            "Query-adaptive Convolution and Temporal Lifting, ECCV 2020",
            _sample(augment='{ use = "core.occlude" }'),
        ),
        Component(
            "jitter",
            settings.Jitter,
            "reidcore.builtin.augmentations:build_jitter",
            "changes brightness, contrast, saturation and hue at random, in random order",
            sample=_sample(augment='{ use = "core.jitter" }'),
        ),
        Component(
            "grey",
            settings.Grey,
            "reidcore.builtin.augmentations:build_grey",
            "shows some pictures in grey, by their brightness or by one of their channels",
            "Ye et al., Channel Augmented Joint Learning for Visible-Infrared Recognition, ICCV "
            "2021 (of = channel)",
            _sample(augment='{ use = "core.grey" }'),
        ),
    ]
