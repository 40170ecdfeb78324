"""The losses and miners of pytorch-metric-learning in runs of reidcore."""
