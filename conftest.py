"""Settings of the test run that every folder of tests shares."""

from __future__ import annotations

import os

# Several workers (`pytest -n`) that computed with all cores each would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
