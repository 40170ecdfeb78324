"""A procedure: plain training that ends with an average of the weights."""

from __future__ import annotations

from reidcore.modules import Run
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reid_PLUGIN.settings_average import Average as Settings


def average(config: Settings, run: Run) -> None:
    """Trains as `core.train` does and follows the weights: average = decay * average + (1 - decay)
    * weights after every step. In the last epoch the average takes their place; everything that is
    not trained by gradients, such as the means of batch norms, stays as the last step left it."""
    model, optimizer = run.model, run.optimizer()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.decay))
    # All that has a state is handed to `epochs`, so that a killed run goes on with the same bits.
    for epoch in run.epochs(optimizer=optimizer, averaged=averaged):
        if epoch == 0:
            model.before_training(run.extract)
        for batch in run.batches(run.train, epoch):
            features = model(batch.images)
            loss, terms = model.loss(features, batch)
            run.update(loss, optimizer)
            model.after_step(features, batch)
            averaged.update_parameters(model)
            run.log(loss=loss, **terms)
        model.after_epoch(run.means())
        if epoch + 1 == run.table["train"]["epochs"]:
            model.load_state_dict({**model.state_dict(), **_trained(averaged.module)})


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
