"""The models of timm (PyTorch Image Models) as backbones of reidcore."""
