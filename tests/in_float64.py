"""Runs the command `reid` in float64, where two ways of adding up the same numbers stay close."""

from __future__ import annotations

import sys

import torch

from reidcore.cli.main import main
from reidcore.data import pictures

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    normalized = pictures.normalized
    pictures.normalized = lambda pixels, by: normalized(pixels, by).double()
    sys.exit(main())
