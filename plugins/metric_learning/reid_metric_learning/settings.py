"""Settings of the plugin's loss."""

from __future__ import annotations

from typing import Any

import attrs

from reidcore.api import VectorName, setting

_OBJECTS = (
    "What is an object there is a class name, or a table with its own arguments: distance = { use "
    '= "LpDistance", p = 1 }'
)


@attrs.frozen
class MetricLossSettings:
    """Settings of `metric_learning.loss`."""

    feature: VectorName = setting("the vector to train")
    loss: str = setting("a class of pytorch_metric_learning.losses, such as MultiSimilarityLoss")
    arguments: dict[str, Any] = setting(
        "its keyword arguments; the run itself gives the number of classes and the vector's "
        f"length. {_OBJECTS}",
        default={},
    )
    miner: str = setting(
        "a class of pytorch_metric_learning.miners, which picks the pairs or triplets of a batch "
        'that the loss uses, or weighs its rows by them; "": the loss gets all',
        default="",
    )
    miner_arguments: dict[str, Any] = setting("keyword arguments of the miner", default={})
