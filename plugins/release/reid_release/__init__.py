"""Reid release: a trained run as a folder with a model card, to share and to load."""
