"""The torch half of the plugin `shown`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidcore.api import Heat, Lines, Table
from reidcore.modules import Loss, Matcher, grad_cam


class Mean(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, features, images):
        return {"vector": features[self.config.source].mean((2, 3))}

    def explain(self, features, images):
        values = features[self.config.source].detach().mean(1).numpy()
        fault = self.config.fault
        if fault == "raises":
            raise KeyError("nowhere")
        if fault == "no mapping":
            return [Heat(values)]
        if fault == "name":
            return {"A b": Heat(values)}
        if fault == "tensor":
            return {"mean": torch.zeros(2, 2, 2)}
        if fault == "grids":
            return {"mean": Heat(values[:1])}
        if fault == "lines":
            return {"mean": Lines(np.zeros((1, 2)), np.zeros((1, 2)), np.ones(1))}
        if fault == "shape":
            return {"mean": Heat(values[0])}
        facts = Table(("picture", "mean"), [(i, float(one.mean())) for i, one in enumerate(values)])
        return {"mean": Heat(values, meaning="mean", low=-1.0, high=1.0), "facts": facts}


class Places(Matcher):
    def __init__(self, config):
        super().__init__()
        self.feature = config.feature

    def template(self, features):
        return {"map": features[self.feature]}

    def distance(self, a, b):
        return (a["map"][:, None] - b["map"][None]).square().flatten(2).mean(2)

    def explain(self, a, b):
        """From the strongest place of each picture to the nearest one of the other."""
        (first,), (second,) = a["map"], b["map"]
        return {
            "forth": self._lines(first, second, "gallery"),
            "back": self._lines(second, first, "query"),
        }

    def _lines(self, asked, other, towards):
        far = torch.cdist(asked.flatten(1).T, other.flatten(1).T)
        best = far.argmin(1)
        start, end = (_centres(index, asked.shape) for index in (torch.arange(len(far)), best))
        ends = (start, end) if towards == "gallery" else (end, start)
        return Lines(
            *ends,
            asked.flatten(1).norm(dim=0).numpy(),
            towards=towards,
            numbers={"index": best.numpy()},
            meaning="norm",
        )


def _centres(index, shape):
    _, height, width = shape
    return np.stack([(index % width + 0.5) / width, (index // width + 0.5) / height], 1)


class Guess(Loss):
    def __init__(self, config, context):
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(context.vector(config.feature), context.identities, bias=False)

    def forward(self, features, batch):
        return F.cross_entropy(self.classifier(features[self.config.feature]), batch.pid)

    def explain(self, features, images):
        """Grad-CAM of every picture's likeliest class."""
        score = self.classifier(features[self.config.feature]).amax(1).sum()
        values = features[self.config.source]
        (gradient,) = torch.autograd.grad(score, values, retain_graph=True)
        return {"best": Heat(grad_cam(values, gradient).detach().numpy(), meaning="likeliest")}


def build_mean(config, context):
    return Mean(config)


def build_places(config, context):
    return Places(config)


def build_guess(config, context):
    return Guess(config, context)
