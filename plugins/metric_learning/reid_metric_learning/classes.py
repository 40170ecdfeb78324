"""Classes of pytorch-metric-learning by name, called with the keyword arguments of a run file.

Names and arguments are looked up in the installed version; what is wrong raises `WiringError` in
the run file's words.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytorch_metric_learning
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.reducers import BaseReducer
from pytorch_metric_learning.regularizers import BaseRegularizer
from torch import nn

from reidcore.api import WiringError
from reidcore.errors import nearest

LIBRARY = f"pytorch-metric-learning {pytorch_metric_learning.__version__}"
RUN_GIVES = ("num_classes", "embedding_size", "descriptors_dim")
"""Arguments that follow from the run; the last two are the length of the vectors."""
SETTINGS = {"loss": "arguments", "miner": "miner_arguments"}
"""Settings that name a class, and those with its arguments."""
FAMILIES: Mapping[str, tuple[ModuleType, type]] = {
    "loss": (losses, BaseMetricLossFunction),
    "miner": (miners, BaseMiner),
    "distance": (distances, BaseDistance),
    "reducer": (reducers, BaseReducer),
    "embedding_regularizer": (regularizers, BaseRegularizer),
    "weight_regularizer": (regularizers, BaseRegularizer),
}
"""Settings and arguments that are objects: where their classes are, and what all of them are."""
WRAPPERS = {
    "CrossBatchMemory": "keeps the features of earlier batches while it computes, so that a run "
    "could not be resumed",
    "MultipleLosses": "only adds other losses up; give each of them its own [[loss]]",
    "SelfSupervisedLoss": "compares two augmented pictures of each row, and a batch has one",
}
"""Classes of the library's losses that are no loss of features and identities, and why not."""
HIDDEN = ("collect_stats", "weight_init_func")
"""Arguments that no run file can give, or that only keep records."""
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list"}


def make(
    family: str,
    name: str,
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int],
    inside: str = "",
) -> nn.Module:
    """An object of the class `name`.

    family: which of `FAMILIES`. sizes: the values of `RUN_GIVES`, for classes that cannot do
    without. inside: for an object that is an argument itself, the setting that it stands in.
    """
    field = inside or SETTINGS[family]
    cls = _find(family, name, inside)
    known = keywords(cls)
    offered = {key: parameter for key, parameter in known.items() if key not in RUN_GIVES}
    values = {
        key: _value(cls, key, value, offered, sizes, field) for key, value in arguments.items()
    }
    needed = [key for key, parameter in known.items() if parameter.default is parameter.empty]
    missing = [key for key in needed if key in offered and key not in values]
    if missing:
        raise WiringError(
            field, f"lack {', '.join(missing)}, which {name} needs. {_listing(cls, offered)}"
        )
    try:
        return cls(**values, **{key: sizes[key] for key in needed if key in sizes})
    except Exception as error:  # the library's own checks, some of them assertions
        raise WiringError(field, f"do not suit {name}: {in_words(error)}") from error


def _find(family: str, name: str, inside: str) -> type:
    """The class of this name. WiringError if there is none that can stand in a run."""
    module, base = FAMILIES[family]
    names = sorted(
        key
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        # What other classes are derived from is not a loss itself.
        and not key.startswith(("Base", "Generic"))
    )
    if name in names:
        return getattr(module, name)
    field, verb = (inside, "name") if inside else (family, "names")
    there = f"There are {', '.join(names)}."
    if name in WRAPPERS:
        raise WiringError(field, f"{verb} {name!r}, which {WRAPPERS[name]}. {there}")
    raise WiringError(
        field,
        f"{verb} {name!r}, which is no {family} of {LIBRARY}{nearest(name, names) or '.'} {there}",
    )


def keywords(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments that a class takes by name: its own, and those of the classes it is derived
    from as far as it passes others on."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        init = vars(one).get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                continue
            # What a base class cannot do without, the derived class passes itself.
            optional = parameter.default is not parameter.empty
            if one is cls or optional or parameter.name in RUN_GIVES:
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return {name: parameter for name, parameter in found.items() if name not in HIDDEN}


def _value(
    cls: type,
    key: str,
    value: Any,
    offered: Mapping[str, inspect.Parameter],
    sizes: Mapping[str, int],
    field: str,
) -> Any:
    """Return the value that the class gets for one key of a table of arguments."""
    if key in RUN_GIVES:
        raise WiringError(field, f"have {key!r}, which the run gives to {cls.__name__} itself")
    if key not in offered:
        raise WiringError(
            field,
            f"have {key!r}, which {cls.__name__} does not take{nearest(key, offered) or '.'} "
            f"{_listing(cls, offered)}",
        )
    if key in FAMILIES:
        return _object(cls, key, value, sizes, field)
    kinds = _kinds(offered[key])
    if type(value) not in kinds:
        words = " or ".join(WORDS[kind] for kind in kinds if kind is not int or float not in kinds)
        raise WiringError(field, f"have {key} = {value!r}, but {cls.__name__} takes {words} there")
    return value


def _object(cls: type, key: str, value: Any, sizes: Mapping[str, int], field: str) -> nn.Module:
    """A distance, reducer or regularizer: the name of its class, or a table with its name."""
    table = {"use": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("use"), str):
        raise WiringError(
            field,
            f"have {key} = {value!r}, but {cls.__name__} takes the name of a class there, or a "
            'table such as { use = "NAME", ... } with its arguments',
        )
    arguments = {name: one for name, one in table.items() if name != "use"}
    return make(key, table["use"], arguments, sizes, field)


def _kinds(parameter: inspect.Parameter) -> tuple[type, ...]:
    """The types that a parameter takes, as far as its annotation or default tells. A default of 1
    may stand for any number, and one that is a text, such as "all", for a number in its place."""
    declared = parameter.annotation
    if declared in (bool, int, str):
        return (declared,)
    kind = float if declared is float else type(parameter.default)
    return {bool: (bool,), int: (int, float), float: (int, float), str: (str, int)}.get(
        kind, (bool, int, float, str, list)
    )


def _listing(cls: type, offered: Mapping[str, inspect.Parameter]) -> str:
    shown = [
        key if parameter.default in (parameter.empty, None) else f"{key} = {parameter.default!r}"
        for key, parameter in sorted(offered.items())
    ]
    return f"{cls.__name__} takes {', '.join(shown) or 'no arguments'}."


def in_words(error: Exception) -> str:
    """The library's words, with their kind, which is all there is of some."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
