"""The core's readers of data sets on disk. Imports neither torch nor numpy."""

from reidcore.readers.cuhk03_np import CUHK03NP
from reidcore.readers.demo import Demo
from reidcore.readers.duke import DukeMTMC
from reidcore.readers.market import Market1501
from reidcore.readers.msmt17 import MSMT17
from reidcore.readers.regdb import RegDB
from reidcore.readers.sysu_mm01 import SYSUMM01
from reidcore.readers.vehicleid import VehicleID
from reidcore.readers.veri776 import VeRi776

__all__ = [
    "CUHK03NP",
    "MSMT17",
    "SYSUMM01",
    "Demo",
    "DukeMTMC",
    "Market1501",
    "RegDB",
    "VeRi776",
    "VehicleID",
]
