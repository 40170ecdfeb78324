"""Calls readers of data sets; what they raise becomes an error that says whose fault it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reidcore.contracts.wiring_methods import Unkept, call_wiring
from reidcore.errors import DataError, PluginError, ReidError
from reidcore.support.author_code import with_place


def ask_reader(place: str, use: str, reader: Any, method: str, *given: Path) -> Any:
    """Return what a method of a reader's settings returns; rows come as a list.

    place: what names the reader, such as "[data] test 'market1501'", for messages. use: the
    reader's full name. Raises `DataError` if the data are at fault, `PluginError` if the reader is.
    """
    try:
        return call_wiring("reader", reader, method, *given)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except ReidError:
        raise
    except OSError as error:
        raise DataError(f"{place}: {error}") from error
    except (Exception, SystemExit) as error:
        text = str(error) if isinstance(error, Unkept) else with_place(error)
        raise PluginError(f"{place}: {method}() of {use} failed: {text}") from error
