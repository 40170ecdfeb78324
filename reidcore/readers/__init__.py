"""The core's readers of data sets on disk. Imports neither torch nor numpy."""

from reidcore.readers.demo import Demo
from reidcore.readers.market import Market1501

__all__ = ["Demo", "Market1501"]
