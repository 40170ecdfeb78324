"""Hooks of the plugin `core`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reidcore.builtin import settings
from reidcore.builtin.readers.descriptors import READERS
from reidcore.contracts.component import Component
from reidcore.hookspecs import hookimpl
from reidcore.plugins.samples import sample_run

_SOFTMAX = dict(name="id", use="core.softmax", features=["neck.bn"])


def _mimic(what: str, **learns: str) -> dict[str, str]:
    """The table of a loss in a sample, whose teacher need not be there."""
    return dict(name="mimic", use=f"core.distill_{what}", teacher="runs/teacher", **learns)


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
            sample_run(),
        ),
        Component(
            "osnet",
            settings.OSNet,
            "reidcore.builtin.backbones:build_osnet",
            "OSNet without its classifier: stem, layer1 to layer4 (published as conv1 to conv5, "
            "each with the pooling after it) and the vector fc",
            "Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019",
            sample_run(
                backbone=dict(use="core.osnet", width=0.25),
                head=dict(name="neck", use="core.bnneck", source="backbone.fc"),
            ),
        ),
        Component(
            "mobilenet_v2",
            settings.MobileNetV2,
            "reidcore.builtin.backbones:build_mobilenet_v2",
            "MobileNetV2 without its classifier: stem and layer1 to layer4, whose map has 1280 "
            "channels, at a ResNet's strides from layer1 on",
            "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
            sample_run(backbone=dict(use="core.mobilenet_v2", width=0.25)),
        ),
        Component(
            "vgg19_bn",
            settings.VGG19BN,
            "reidcore.builtin.backbones:build_vgg19_bn",
            "VGG-19 with batch norm, without its classifier: stem and layer1 to layer4, one block "
            "of convolutions each, at a ResNet's strides from layer1 on",
            "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image "
            "Recognition, ICLR 2015",
            sample_run(backbone=dict(use="core.vgg19_bn", width=0.125)),
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
            sample_run(
                head=dict(name="neck", use="core.pool", source="backbone.layer4"),
                matcher=dict(name="look", use="core.cosine", features=["neck.vector"]),
                loss=dict(name="id", use="core.softmax", features=["neck.vector"]),
            ),
        ),
        Component(
            "bnneck",
            settings.BNNeck,
            "reidcore.builtin.heads:build_bnneck",
            "a vector before (pooled) and after (bn) batch normalisation",
            "Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification, "
            "CVPRW 2019",
            sample_run(),
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
            sample_run(),
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
            sample_run(
                loss=[dict(name="triplet", use="core.triplet", feature="neck.pooled"), _SOFTMAX]
            ),
        ),
        Component(
            "arcface",
            settings.ArcFace,
            "reidcore.builtin.margin_losses:build_arcface",
            "cross-entropy of scaled cosines with an additive angular margin",
            "Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR "
            "2019",
            sample_run(loss=dict(name="arcface", use="core.arcface", feature="neck.bn")),
        ),
        Component(
            "cosface",
            settings.CosFace,
            "reidcore.builtin.margin_losses:build_cosface",
            "cross-entropy of scaled cosines with an additive margin on the cosine",
            "Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018",
            sample_run(loss=dict(name="cosface", use="core.cosface", feature="neck.bn")),
        ),
        Component(
            "circle",
            settings.Circle,
            "reidcore.builtin.margin_losses:build_circle",
            "cosines weighted by how far they are from their optimum, of classes or of pairs",
            "Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR "
            "2020",
            sample_run(
                loss=[
                    dict(name="circle", use="core.circle", feature="neck.pooled"),
                    dict(name="pairs", use="core.circle", feature="neck.pooled", form="pair"),
                ]
            ),
        ),
        Component(
            "center",
            settings.Center,
            "reidcore.builtin.losses:build_center",
            "half the squared distance of a vector from its identity's center",
            "Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, "
            "ECCV 2016",
            sample_run(
                loss=[
                    _SOFTMAX,
                    dict(name="center", use="core.center", feature="neck.pooled", weight=0.003),
                ]
            ),
        ),
        Component(
            "distill_features",
            settings.DistillFeatures,
            "reidcore.builtin.distillation:build_features",
            "distance of a feature from that of a trained run, the teacher",
            "Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015",
            sample_run(loss=[_SOFTMAX, _mimic("features", feature="neck.bn")]),
        ),
        Component(
            "distill_distances",
            settings.DistillDistances,
            "reidcore.builtin.distillation:build_distances",
            "difference of a matcher's distances within a batch from those of a trained run's "
            "ranking, each divided by their mean",
            "Park et al., Relational Knowledge Distillation, CVPR 2019",
            sample_run(loss=[_SOFTMAX, _mimic("distances", matcher="look")]),
        ),
        Component(
            "distill_logits",
            settings.DistillLogits,
            "reidcore.builtin.distillation:build_logits",
            "divergence of a matcher's probabilities of one identity within a batch from those of "
            "a trained run's pairwise matcher",
            "Hinton et al., Distilling the Knowledge in a Neural Network, 2015",
            sample_run(loss=[_SOFTMAX, _mimic("logits", matcher="look")]),
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
            sample=sample_run(),
        ),
        Component(
            "euclidean",
            settings.Euclidean,
            "reidcore.builtin.matchers:build_euclidean",
            "Euclidean distance of concatenated vectors, or its square",
            sample=sample_run(
                matcher=dict(name="look", use="core.euclidean", features=["neck.bn"])
            ),
        ),
    ]


@hookimpl
def reid_postprocessors() -> Sequence[Component]:
    return [
        Component(
            "rerank",
            settings.Rerank,
            "reidcore.builtin.reranking:build_rerank",
            "k-reciprocal re-ranking",
            "Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR "
            "2017",
            sample_run(post=dict(name="rerank", use="core.rerank", k1=4, k2=2)),
        ),
        Component(
            "expand",
            settings.Expand,
            "reidcore.builtin.query_expansion:build_expand",
            "average query expansion: queries merged with their nearest gallery pictures",
            "Chum et al., Total Recall: Automatic Query Expansion with a Generative Feature Model "
            "for Object Retrieval, ICCV 2007",
            sample_run(post=dict(name="expand", use="core.expand", top=2)),
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
            sample=sample_run(),
        )
    ]


@hookimpl
def reid_readers() -> Sequence[Component]:
    return READERS


@hookimpl
def reid_samplers() -> Sequence[Component]:
    return [
        Component(
            "shuffled",
            settings.Shuffled,
            "reidcore.builtin.samplers:build_shuffled",
            "every picture once an epoch, in random order",
            sample=sample_run(batch=dict(use="core.shuffled", size=8)),
        ),
        Component(
            "identities",
            settings.Identities,
            "reidcore.builtin.samplers:build_identities",
            "batches of so many identities with so many pictures each",
            "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017",
            sample_run(),
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
            sample_run(
                data=dict(
                    read="core.demo",
                    train_identities=4,
                    test_identities=2,
                    pictures=8,
                    infrared_cameras=2,
                ),
                batch=dict(use="core.two_modalities", ids=2, per_id=2),
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
            sample=sample_run(augment=[dict(use="core.flip")]),
        ),
        Component(
            "pad_crop",
            settings.PadCrop,
            "reidcore.builtin.augmentations:build_pad_crop",
            "pads all sides and crops at a random place to the size before",
            sample=sample_run(augment=[dict(use="core.pad_crop", pad=4)]),
        ),
        Component(
            "erase",
            settings.Erase,
            "reidcore.builtin.augmentations:build_erase",
            "random erasing: fills a random rectangle",
            "Zhong et al., Random Erasing Data Augmentation, AAAI 2020",
            sample_run(augment=[dict(use="core.erase")]),
        ),
        Component(
            "occlude",
            settings.Occlude,
            "reidcore.builtin.augmentations:build_occlude",
            "random occlusion: fills a random square",
            "Liao and Shao, Interpretable and Generalizable Person Re-identification with "
            "Query-adaptive Convolution and Temporal Lifting, ECCV 2020",
            sample_run(augment=[dict(use="core.occlude")]),
        ),
        Component(
            "jitter",
            settings.Jitter,
            "reidcore.builtin.augmentations:build_jitter",
            "changes brightness, contrast, saturation and hue at random, in random order",
            sample=sample_run(augment=[dict(use="core.jitter")]),
        ),
        Component(
            "grey",
            settings.Grey,
            "reidcore.builtin.augmentations:build_grey",
            "shows some pictures in grey, by their brightness or by one of their channels",
            "Ye et al., Channel Augmented Joint Learning for Visible-Infrared Recognition, ICCV "
            "2021 (of = channel)",
            sample_run(augment=[dict(use="core.grey")]),
        ),
    ]
