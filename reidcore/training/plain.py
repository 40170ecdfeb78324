"""Plain training, the procedure `core.train`."""

from __future__ import annotations

from typing import Any

from reidcore.contracts.run_interfaces import Run


def train(config: Any, run: Run) -> None:
    """Train the model, in every epoch once over the training pictures."""
    model = run.model
    optimizer = run.optimizer()
    for epoch in run.epochs(optimizer=optimizer):
        if epoch == 0:
            model.before_training(run.extract)
        for batch in run.batches(run.train, epoch):
            features = model(batch.images)
            loss, terms = model.loss(features, batch)
            run.update(loss, optimizer)
            model.after_step(features, batch)
            run.log(loss=loss, **terms)
        model.after_epoch(run.means())
