"""Where the tests of Triton kernels can run."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def _imports_triton() -> bool:
    """Whether it is there and whole: that of torch 2.6 needs setuptools and does not say so."""
    done = subprocess.run([sys.executable, "-c", "import triton"], capture_output=True)
    return done.returncode == 0


has_triton = pytest.mark.skipif(not _imports_triton(), reason="triton cannot be imported")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def interpreting() -> Iterator[Run]:
    """Calls a function in a process whose Triton kernels run on the CPU, which is decided before
    triton is imported."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(torch.set_num_threads, 1).result()
        yield lambda function, *values: pool.submit(function, *values).result()
