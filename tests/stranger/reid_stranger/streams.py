"""The procedure, written against `Run` alone."""

from __future__ import annotations

import json

import numpy as np
import torch.nn.functional as F
from torch import nn

from reid_stranger import plugin
from reidcore.modules import Run


def two_streams(config: plugin.TwoStreams, run: Run) -> None:
    """The run's losses see the first half of the identities; an own classifier, with an own
    optimizer, learns the second half from the run's features."""
    identities = run.train.identities
    others = range(identities // 2, identities)
    first = run.train.where(run.train.pid < identities // 2)
    second = run.train.where(np.isin(run.train.pid, others)).relabelled(others)
    features, _ = next(run.extract(run.train.take([0])))
    classifier = nn.Linear(features[config.feature].shape[1], len(others))
    own = nn.Sequential(nn.Dropout(0.2), classifier).to(run.device)
    optimizer, own_optimizer = run.optimizer(), run.optimizer(own.parameters())
    for epoch in run.epochs(optimizer=optimizer, own=own, own_optimizer=own_optimizer):
        if epoch == 0:
            run.model.before_training(run.extract)
        streams = zip(run.batches(first, epoch), run.batches(second, epoch, stream=1), strict=False)
        for batch, other in streams:
            features = run.model(batch.images)
            loss, terms = run.model.loss(features, batch)
            scores = own(run.model(other.images)[config.feature])
            other_loss = F.cross_entropy(scores, other.pid)
            run.update(loss + other_loss, optimizer, own_optimizer)
            run.model.after_step(features, batch)
            run.log(loss=loss, other=other_loss, **terms)
        run.model.after_epoch(run.means())
    run.write("own.json", json.dumps(classifier.weight.tolist()))
