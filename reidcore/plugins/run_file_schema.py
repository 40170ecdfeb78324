"""The JSON schema of run files, made from the components that are installed. Torch-free.

It refuses nothing that `reid check` accepts; that features are named rightly and fit together is
what only `reid check` finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reidcore.contracts.row_labels import SPLITS
from reidcore.contracts.settings import INSTANCE
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import LoadedComponent
from reidcore.plugins.settings_schema import Schema, table, table_schema
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.runfiles.keys import COMPONENT_TABLES, FORMAT, LARGEST, LISTS, SOURCE_KEYS
from reidcore.runfiles.tables import BY_ROLE, CORE_TABLES, RankingTable

DRAFT = "http://json-schema.org/draft-07/schema#"
TEXT: Schema = {"type": "string"}
NAME: Schema = {
    "type": "string",
    "pattern": f"^{INSTANCE.pattern}$",
    "description": "Name of this part, of a-z, 0-9 and _.",
}
WEIGHT: Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": LARGEST,
    "default": 1.0,
    "description": "Factor of this loss in the sum of all.",
}


def run_file_schema(plugins: Plugins) -> Schema:
    """Return the JSON schema of run files that use the usable ones of these plugins."""
    tables = _tables(plugins)
    usable = [plugin for name in plugins.names() if (plugin := plugins.status(name).plugin)]
    observers = [plugin for plugin in usable if plugin.observes]
    properties = {
        "format": _format(),
        "name": {
            "type": "string",
            "pattern": r"^\w[\w.\-]*$",
            "description": "Name of the run, and of its folder; the file's own if not set.",
        },
        "plugins": {
            "type": "array",
            "items": {"enum": [plugin.found.name for plugin in observers]},
            "description": "Plugins that observe the run; components need no entry here.",
        },
        **tables,
        **{one.found.name: table_schema(one.settings) for one in observers if one.settings},
        "repeat": {
            "type": "object",
            "description": "Lists by dotted key: the run is repeated with a value of each.",
        },
    }
    schema = table(properties, ("format", "data", "backbone", "train"))
    return _whole("run file of reidcore", schema, plugins)


def evaluation_file_schema(plugins: Plugins) -> Schema:
    """Return the JSON schema of files that give a trained run another evaluation."""
    tables = _tables(plugins)
    test = tables["data"]["properties"]["test"]
    kept = {key: tables[key] for key in ("ranking", "post", "eval")}
    schema = table({"format": _format(), "data": table({"test": test}), **kept}, ("format",))
    return _whole("evaluation file of reidcore", schema, plugins)


def _whole(title: str, schema: Schema, plugins: Plugins) -> Schema:
    definitions = {
        f"{one.kind}.{one.name}": _component(one)
        for one in plugins.components()
        if one.kind != "reader"
    }
    for one in plugins.components("reader"):
        for role in SOURCE_KEYS:
            definitions[f"{role}.{one.name}"] = _reader(one, role)
    return {"$schema": DRAFT, "title": title, **schema, "definitions": definitions}


def _format() -> Schema:
    return {"const": FORMAT, "description": "Version of the form of this file."}


def _tables(plugins: Plugins) -> dict[str, Schema]:
    """Return the schemas of the core's tables and of those that name components."""
    core = {key: table_schema(config) for key, config in CORE_TABLES.items()}
    for key, config in CORE_TABLES.items():
        core[key]["description"] = " ".join((config.__doc__ or "").split())
    data = core["data"]["properties"]
    for role in SOURCE_KEYS:
        entry = _entry(plugins, role)
        data[role].update({"anyOf": [entry, {"type": "array", "items": entry}]})
    data["augment"]["items"] = _choice(plugins, "augmentation")
    data["batch"] = {**data["batch"], **_choice(plugins, "sampler")}
    core["eval"]["properties"]["protocol"].update(_protocol())
    for key, by_role in BY_ROLE.items():
        # `head.neck = 0.1` without quotes is a table in a table.
        number = core[key]["properties"][by_role]["additionalProperties"]
        number["type"] = [number["type"], "object"]
    parts: dict[str, Schema] = {}
    for where, kind in COMPONENT_TABLES.items():
        choice = _choice(plugins, kind)
        parts[where] = {"type": "array", "items": choice} if where in LISTS else choice
    ranking = table_schema(RankingTable)
    ranking["description"] = " ".join((RankingTable.__doc__ or "").split())
    return {**core, **parts, "ranking": {"type": "array", "items": ranking}}


def _choice(plugins: Plugins, kind: str) -> Schema:
    """Return the schema of a table whose `use` names a component of this kind."""
    names = [one.name for one in plugins.components(kind)]
    return _by_name("use", names, lambda name: f"{kind}.{name}")


def _by_name(key: str, names: Iterable[str], definition: Any) -> Schema:
    """Return the schema of a table with a key that decides which others there are."""
    refs = {name: {"$ref": f"#/definitions/{definition(name)}"} for name in names}
    return {
        "type": "object",
        "properties": {key: {"enum": list(refs)}},
        "required": [key],
        "allOf": [
            {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": ref}
            for name, ref in refs.items()
        ],
        # Refuses nothing: editors that do not read "if" offer the keys that stand here.
        "anyOf": [*refs.values(), {}],
    }


def _component(one: LoadedComponent) -> Schema:
    """Return the schema of a component's table."""
    where = {kind: where for where, kind in COMPONENT_TABLES.items()}.get(one.kind, "")
    own: dict[str, Schema] = {"use": _named(one)}
    if where in LISTS:
        own["name"] = NAME
    if where == "loss":
        own["weight"] = WEIGHT
    # A [[post]] without a name is post0, post1, ...
    needed = ("use",) if where == "post" or where not in LISTS else ("use", "name")
    return _merged(own, needed, table_schema(one.component.config))


def _reader(one: LoadedComponent, role: str) -> Schema:
    """Return the schema of an entry of data.train or data.test that names this reader."""
    own = {"read": _named(one), "root": _ROOT, **_source_keys(role)}
    return _merged(own, ("read",), table_schema(one.component.config))


def _named(one: LoadedComponent) -> Schema:
    component = one.component
    said = [component.summary]
    said += [f"Paper: {component.paper}"] if component.paper else []
    said += [f"Deprecated: {component.deprecated}"] if component.deprecated else []
    return {"const": one.name, "description": ". ".join(text.rstrip(".") for text in said if text)}


def _merged(own: Mapping[str, Schema], needed: Iterable[str], settings: Schema) -> Schema:
    """Return the core's keys of a table and the component's as one schema."""
    properties = {**own, **settings["properties"]}
    return table(properties, [*needed, *settings.get("required", ())])


_ROOT: Schema = {**TEXT, "description": "Folder of the data set, also looked up under REID_DATA."}


def _source_keys(role: str) -> dict[str, Schema]:
    known: dict[str, Schema] = {
        "splits": {
            "type": "array",
            "items": {"enum": list(SPLITS)},
            "description": "Splits to use; if not set, those of its role.",
        },
        "name": {**TEXT, "description": "Name of the data set."},
        "protocol": _protocol(),
    }
    return {key: known[key] for key in SOURCE_KEYS[role]}


def _entry(plugins: Plugins, role: str) -> Schema:
    """Return the schema of an entry of data.train or data.test."""
    names = [one.name for one in plugins.components("reader")]
    readers = _by_name("read", names, lambda name: f"{role}.{name}")
    manifest = {**TEXT, "description": "A CSV file, also looked up under REID_DATA."}
    listed = table({"manifest": manifest, **_source_keys(role)}, ("manifest",))
    return {
        "type": "object",
        "if": {"required": ["manifest"]},
        "then": listed,
        "else": {key: readers[key] for key in ("properties", "required", "allOf")},
        "anyOf": [listed, *readers["anyOf"]],
    }


def _protocol() -> Schema:
    """Return the schema of a protocol: its name, or a table with its settings."""
    tables = []
    for name, config in PROTOCOLS.items():
        words = " ".join((config.__doc__ or "").split())
        own = {"use": {"const": name, "description": words}}
        tables.append(_merged(own, ("use",), table_schema(config)))
    return {"anyOf": [{"enum": list(PROTOCOLS)}, *tables]}
