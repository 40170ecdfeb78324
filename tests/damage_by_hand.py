"""Damages that need thought: references, names, contradictions, syntax and `--set`."""

from __future__ import annotations

import attrs
from damage import Case, Damager, Table

FEATURES = "Available vectors: neck.pooled (vector 512), neck.bn (vector 512)"


def references(many: Damager, readers: Damager) -> None:
    """Names of features, matchers, losses, postprocessors and roles."""
    feature = many.value
    for value, says in (
        ('"backbone.layr4"', "did you mean 'backbone.layer4'?"),
        ('"backbone.layer5"', "did you mean 'backbone.layer4'?"),
        ('"zzz.map"', "Available features: backbone.stem (map 16x32x16)"),
        ('"backbone"', "Available features: backbone.stem"),
    ):
        name = value.strip('"')
        feature("unknown feature", "[[head]]", "source", value, name, of="neck", says=says)
    for header, of, key, value in (
        ("[[head]]", "neck", "source", '""'),
        ("[[matcher]]", "plain", "features", '[""]'),
        ("[[loss]]", "memory", "feature", '""'),
    ):
        feature("unknown feature", header, key, value, key, of=of, says=f"{key} names ''")
    for header, of, key, value, name, says in (
        ("[[matcher]]", "look", "features", '["neck.bm"]', "neck.bm", "did you mean 'neck.bn'?"),
        ("[[matcher]]", "look", "features", '["zzz"]', "zzz", FEATURES),
        ("[[matcher]]", "plain", "features", '["late"]', "late", "Available vectors: "),
        ("[[matcher]]", "pairs", "grid", '"cells.gird"', "cells.gird", "'cells.grid'?"),
        ("[[loss]]", "id", "features", '["neck.bn", "nack.bn"]', "nack.bn", "'neck.bn'?"),
        ("[[loss]]", "memory", "feature", '"late.nb"', "late.nb", "'late.bn'?"),
        ("[[loss]]", "both", "feature", '"lat.bn"', "lat.bn", "'late.bn'?"),
    ):
        single = of != "pairs"
        feature("unknown feature", header, key, value, name, of=of, says=says, single=single)
    for header, of, key, value, says in (
        ("[[head]]", "cells", "source", '"neck.bn"', "needs a map, but 'neck.bn' is a vector 512"),
        ("[[matcher]]", "look", "features", '["cells.grid"]', "is a tensor 4x256. " + FEATURES),
        ("[[matcher]]", "plain", "features", '["backbone.stem"]', "is a map 16x32x16"),
        ("[[matcher]]", "pairs", "grid", '"late.bn"', "Available tensors: cells.grid (tensor 4x"),
        ("[[loss]]", "id", "features", '["backbone.layer4"]', "needs a vector, but"),
        ("[[loss]]", "memory", "feature", '"cells.grid"', "needs a vector, but"),
    ):
        feature("wrong kind of feature", header, key, value, key, of=of, says=says, single=True)
    feature("later head", "[[head]]", "source", '"late.bn"', "late.bn", of="neck")
    feature("later head", "[[head]]", "source", '"cells.grid"', "cells.grid", of="neck")
    feature("own output", "[[head]]", "source", '"neck.bn"', "neck.bn", of="neck")
    feature("own output", "[[head]]", "source", '"late.pooled"', "late.pooled", of="late")
    for header, of, value, says in (
        ("[[loss]]", "memory", '"pear"', "did you mean 'pairs'?"),
        ("[[loss]]", "closer", '"zzz"', "there are look, plain, pairs"),
        ("[[loss]]", "memory", '"memory"', "there are look, plain, pairs"),
        ("[data.batch]", "", '"pars"', "did you mean 'pairs'?"),
        ("[[ranking]]", "fast", '"lok"', "did you mean 'look'?"),
        ("[[ranking]]", "bare", '"neck"', "there are look, plain, pairs"),
    ):
        name = value.strip('"')
        feature(
            "unknown matcher",
            header,
            "matcher",
            value,
            name,
            of=of,
            says=says,
            single=header != "[[ranking]]",
        )
    feature(
        "unknown matcher",
        "[[ranking]]",
        "fuse",
        "{ lok = 1.0 }",
        "lok",
        of="fused",
        says="did you mean 'look'?",
    )
    feature(
        "unknown loss",
        "[[loss]]",
        "losses",
        '["closr"]',
        "closr",
        of="both",
        says="did you mean 'closer'?",
    )
    feature("unknown loss", "[[loss]]", "losses", '["both"]', "both", of="both", says="there are")
    feature(
        "unknown post",
        "[[ranking]]",
        "post",
        '["order", "wlak"]',
        "wlak",
        of="fast",
        says="did you mean 'walk'?",
        single=False,
    )
    feature(
        "unknown post",
        "[[ranking]]",
        "post",
        '["zzz"]',
        "zzz",
        of="bare",
        says="there are order, walk, cut",
    )
    feature(
        "post twice",
        "[[ranking]]",
        "post",
        '["order", "walk", "order"]',
        "order",
        of="fast",
        single=False,
    )
    bad = many.good.copy()
    bad.tables[bad.find("[[ranking]]", "fast")].keys["post"] = '["order"]'
    many.case("unused post", "walk", bad, bad.find("[[post]]", "walk"), "", "walk")
    for role, says in (("bakbone", "'backbone'?"), ("head.neek", "'head.neck'?"), ("a.b", "there")):
        feature("unknown role", "[optim]", "scale", f'{{ "{role}" = 0.1 }}', role, says=says)
        feature("unknown role", "[train]", "frozen_norm", f'["{role}"]', role, says=says)
        feature("unknown role", "[train]", "start_share", f'{{ "{role}" = 0.1 }}', role, says=says)
    feature("unknown score", "[train]", "best", '"mAPP"', "mAPP", says="did you mean 'mAP'?")
    for name in ("rank-0", "rank-1000000"):
        feature("unknown score", "[train]", "best", f'"{name}"', name, says="Scores are mAP")
    feature("bad device", "[train]", "device", '"gpu"', "device", says="expected auto, cpu, cuda")
    readers.value("bad device", "[train]", "device", '"cuda:x"', "device", says="cuda:N")


def components(many: Damager, readers: Damager) -> None:
    """What `use` and `read` name."""
    value = many.value
    for header, of, use, says in (
        ("[backbone]", "", "core.resnt", "no backbone 'resnt', did you mean 'resnet'?"),
        ("[[head]]", "neck", "core.bnneek", "did you mean 'bnneck'? Heads of core: core.bnneck"),
        ("[[matcher]]", "look", "core.zzz", "Matchers of core: core.cosine, core.euclidean."),
        ("[[loss]]", "id", "core.sofmax", "did you mean 'softmax'?"),
        ("[[post]]", "order", "toy.rerang", "did you mean 'rerank'?"),
        ("[procedure]", "", "core.trian", "did you mean 'train'?"),
        ("[data.batch]", "", "toy.graf", "did you mean 'graph'?"),
    ):
        short = use.split(".")[1]
        value("unknown component", header, "use", f'"{use}"', short, of=of, says=says)
    for header, of, use, says in (
        ("[backbone]", "", "core.pool", "is a head, not a backbone"),
        ("[[head]]", "neck", "core.softmax", "is a loss, not a head. Heads of core: "),
        ("[[matcher]]", "plain", "toy.cells", "is a head, not a matcher"),
        ("[[loss]]", "id", "core.cosine", "is a matcher, not a loss"),
        ("[[post]]", "cut", "toy.grey", "is an augmentation, not a postprocessor"),
        ("[procedure]", "", "core.demo", "is a reader, not a procedure"),
        ("[data.batch]", "", "core.flip", "is an augmentation, not a sampler"),
    ):
        value("component of another kind", header, "use", f'"{use}"', use, of=of, says=says)
    for header, of, use, says in (
        ("[backbone]", "", "resnet", "did you mean 'core.resnet'?"),
        ("[[head]]", "neck", "bnneck", "did you mean 'core.bnneck'?"),
        ("[[loss]]", "id", "core.softmax.x", "'core.softmax.x'"),
        ("[[matcher]]", "look", ".cosine", "'.cosine'"),
        ("[[post]]", "cut", "zzz", "'zzz'"),
    ):
        value("not plugin.component", header, "use", f'"{use}"', use, of=of, says=says)
    for header, of, use, plugin in (
        ("[backbone]", "", "cor.resnet", "cor"),
        ("[[head]]", "neck", "local.parts", "local"),
        ("[[loss]]", "id", "zoo.sam", "zoo"),
        ("[[post]]", "walk", "tlift.tlift", "tlift"),
    ):
        says = "did you mean 'core'?" if plugin == "cor" else f"pip install reid-plugin-{plugin}"
        value("uninstalled plugin", header, "use", f'"{use}"', plugin, of=of, says=says)
    readers.value("unknown component", "[data.train]", "read", '"core.dmo"', "dmo", says="'demo'?")
    readers.value(
        "component of another kind",
        "[[data.test]]",
        "read",
        '"core.flip"',
        "core.flip",
        of="demo",
        says="not a reader",
    )
    readers.value("uninstalled plugin", "[data.train]", "read", '"cuhk.np"', "cuhk")
    for name, says in (("toi", "'toy'?"), ("zzz", "Installed plugins: ")):
        value("uninstalled plugin", "", "plugins", f'["{name}"]', name, says=says)
    value("observes nothing", "", "plugins", '["core"]', "core")
    for bad in ("3", '"toy"', "[1]", "true"):
        value("bad plugins", "", "plugins", bad, "plugins")


def names(many: Damager, readers: Damager) -> None:
    """Names that are taken, malformed or reserved."""
    for header, of, taken in (
        ("[[head]]", "cells", "neck"),
        ("[[matcher]]", "plain", "look"),
        ("[[loss]]", "both", "id"),
        ("[[post]]", "cut", "order"),
        ("[[ranking]]", "bare", "fast"),
        ("[[head]]", "late", "cells"),
    ):
        many.value("duplicate name", header, "name", f'"{taken}"', taken, of=of)
    for header, of in (
        ("[[head]]", "late"),
        ("[[matcher]]", "look"),
        ("[[loss]]", "id"),
        ("[[post]]", "cut"),
        ("[[ranking]]", "fast"),
    ):
        for bad in ("Neck", "1st", "a-b", "a.b", "", "ä"):
            many.value("bad name", header, "name", f'"{bad}"', "name", of=of)
        if header != "[[ranking]]":  # there a key like any other
            many.value("name of another type", header, "name", "3", "name", of=of)
    many.value("reserved name", "[[head]]", "name", '"backbone"', "backbone", of="late")
    for bad in ('"a b"', '"../x"', '""', "3", '["a"]'):
        many.value("bad run name", "", "name", bad, "name")
    many.value(
        "two test sets of one name",
        "[data]",
        "test",
        '[{ manifest = "people.csv" }, { manifest = "people.csv" }]',
        "people",
    )
    readers.value(
        "two test sets of one name",
        "[[data.test]]",
        "name",
        '"folder"',
        "folder",
        of="demo",
        single=False,
    )


def formats(many: Damager, readers: Damager) -> None:
    """The key `format` and what every table must be."""
    for bad in ('"1"', "1.0", "0", "-1", "true", "[1]"):
        many.value("bad format", "", "format", bad, "format")
    for bad in ("2", "99"):
        many.value("newer format", "", "format", bad, "format", says="upgrade reidcore")
    for damager in (many, readers):
        bad_file = damager.good.copy()
        del bad_file.tables[0].keys["format"]
        damager.case("missing format", "format", bad_file, -1, "", "format")
    for header, of in (
        ("[[head]]", "neck"),
        ("[backbone]", ""),
        ("[[loss]]", "id"),
        ("[data.batch]", ""),
        ("[[post]]", "cut"),
        ("[procedure]", ""),
    ):
        for bad in ("3", '["core.cosine"]'):
            many.value("wrong type", header, "use", bad, "use", of=of)
    for bad in ("3", "-0.5", "true", '"1"', "nan"):
        many.value("bad weight", "[[loss]]", "weight", bad, "weight", of="id")
        if bad == "3":
            many.cases.pop()  # any number of at least 0 is fine
    for table in ("train", "optim", "eval", "data", "backbone", "head", "loss", "repeat"):
        for value in ("3", '"x"'):
            bad_file = many.good.copy()
            bad_file.tables = [t for t in bad_file.tables if t.name.split(".")[0] != table]
            bad_file.tables[0].keys[table] = value
            kind = "value for a list of tables" if table in ("head", "loss") else "value for table"
            many.case(kind, f"{table}={value}", bad_file, 0, table, table, single=table != "head")


def data(many: Damager, readers: Damager) -> None:
    """Entries of data.train and data.test."""
    for key in ("train", "test"):
        for value, says in (("{}", "table with keys none"), ('{ root = "x" }', "keys root")):
            many.value("neither manifest nor read", "[data]", key, value, key, says=says)
        many.value(
            "manifest and read",
            "[data]",
            key,
            '{ manifest = "people.csv", read = "core.demo" }',
            key,
        )
        for extra in ("manifst = 1", "root = 'x'", "seed = 1"):
            many.value(
                "unknown key beside manifest",
                "[data]",
                key,
                f'{{ manifest = "people.csv", {extra} }}',
                extra.split()[0],
            )
        for splits in ('"train"', '["trian"]', "[1]", "3"):
            many.value(
                "bad splits",
                "[data]",
                key,
                f'{{ manifest = "people.csv", splits = {splits} }}',
                "splits",
            )
        many.value("wrong type", "[data]", key, "{ manifest = 3 }", "manifest")
        many.value("wrong type", "[data]", key, "[3]", key)
    readers.value("wrong type", "[data.train]", "root", "3", "root")
    readers.value("bad splits", "[data.train]", "splits", '["all"]', "splits")
    for entry in ('{ read = "toy.folder" }', '{ read = "toy.folder", season = "winter" }'):
        many.value("missing root", "[data]", "train", entry, "root")
    for key in ("train", "batch"):
        bad_file = many.good.copy()
        if key == "train":
            del bad_file.tables[bad_file.find("[data]")].keys["train"]
        else:
            del bad_file.tables[bad_file.find("[data.batch]")]
        many.case("needed for training", key, bad_file, bad_file.find("[data]"), "", key)
    for value, name, kind in (
        ('[{ use = "core.flip", q = 1 }]', "q", "unknown key"),
        ('[{ use = "core.flip", p = 2 }]', "p", "out of range"),
        ('[{ use = "core.flip", p = "x" }]', "p", "wrong type"),
        ('[{ use = "core.flop" }]', "flop", "unknown component"),
        ("[{ p = 0.5 }]", "use", "missing key"),
    ):
        many.value(kind, "[data]", "augment", value, name)


def protocols(many: Damager, readers: Damager) -> None:
    """Names and settings of protocols, and trials that no reader has."""
    for value, name, says in (
        ('"sysuu"', "sysuu", "did you mean 'sysu'?"),
        ('"zzz"', "zzz", "there are cross_camera, single_gallery_shot, vehicleid, sysu, regdb, c"),
        ('{ use = "regbd" }', "regbd", "did you mean 'regdb'?"),
    ):
        many.value("unknown protocol", "[eval]", "protocol", value, name, says=says, single=True)
    many.value(
        "misspelt key",
        "[eval]",
        "protocol",
        '{ use = "sysu", serch = ["all"] }',
        "serch",
        says="did you mean 'search'?",
        single=True,
    )
    many.value(
        "protocol of training",
        "[data]",
        "train",
        '{ manifest = "people.csv", protocol = "sysu" }',
        "protocol",
    )
    many.value("trial of nobody", "[data]", "trial", "3", "trial", single=True)


def contradictions(many: Damager, readers: Damager) -> None:
    """Keys and parts that are each fine and do not fit together."""
    for schedule in ("{}", "{ to = 0.1 }"):
        bad = many.good.copy()
        bad.tables[bad.find("[optim]")].keys["cosine"] = schedule
        many.case("steps and cosine", schedule, bad, bad.find("[optim]"), "", "cosine")
    bad = many.good.copy()
    bad.tables = [table for table in bad.tables if table.name != "ranking"]
    many.case("several matchers, no ranking", "ranking", bad, -1, "", "[[ranking]]")
    bad = readers.good.copy()
    del bad.tables[bad.find("[[matcher]]")]
    readers.case("no matcher", "matcher", bad, -1, "", "[[matcher]]")
    bad = readers.good.copy()
    del bad.tables[bad.find("[[loss]]")]
    readers.case("no loss", "loss", bad, -1, "", "[[loss]]")
    bad = many.good.copy()
    index = bad.find("[[loss]]", "closer")
    bad.tables[index].keys["feature"] = '"late.bn"'
    many.case("triplet of both", "feature", bad, index, "", "feature")
    bad = readers.good.copy()
    del bad.tables[bad.find("[[loss]]")].keys["feature"]
    readers.case("triplet of neither", "feature", bad, bad.find("[[loss]]"), "", "triplet")
    many.value("metric of a matcher", "[[loss]]", "metric", '"cosine"', "metric", of="closer")
    many.value(
        "lengths differ", "[[loss]]", "features", '["neck.bn", "late.bn"]', "features", of="id"
    )
    many.value(
        "no logits",
        "[[loss]]",
        "matcher",
        '"look"',
        "matcher",
        of="memory",
        says="Matchers with logits: pairs.",
    )
    many.value(
        "plugin's own rule",
        "[[head]]",
        "count",
        "3",
        "count",
        of="cells",
        says="must be even here, got 3",
    )
    many.value(
        "weights not found",
        "[[head]]",
        "weights",
        '"no/such.pth"',
        "weights",
        of="cells",
        says="no/such.pth",
    )
    for ids in ("31", "1000"):
        readers.value("too few identities", "[data.batch]", "ids", ids, "ids", says=ids)
    readers.value("batches without pairs", "[data.batch]", "ids", "1", "triplet")
    readers.value("batches without pairs", "[data.batch]", "per_id", "1", "triplet")
    line = readers.good.line(readers.good.find("[[loss]]"))
    readers.cases[-2:] = [attrs.evolve(case, line=line) for case in readers.cases[-2:]]
    for kind, key, value in (
        ("neither matcher nor fuse", "fuse", ""),
        ("matcher and fuse", "matcher", '"look"'),
    ):
        bad = many.good.copy()
        index = bad.find("[[ranking]]", "fused")
        bad.tables[index].keys[key] = value
        if not value:
            del bad.tables[index].keys[key]
        many.case(kind, key, bad, index, "", "fused")
    bad = readers.good.copy()
    del bad.tables[bad.find("[data.train]")]
    bad.tables[bad.find("[train]")].keys["epochs"] = "0"
    keys = {"name": '"a"', "matcher": '"far"', "scale": '"isotonic"', "post": '["post0"]'}
    bad.tables.append(Table("[[ranking]]", keys))
    readers.case(
        "nothing to fit a scale on",
        "isotonic",
        bad,
        len(bad.tables) - 1,
        "scale",
        "'a'",
        single=False,
    )
    bad = many.good.copy()
    bad.tables[bad.find("[[ranking]]", "slow")].keys["scale"] = '"row_minmax"'
    many.case("scaled row by row", "slow", bad, bad.find("[[post]]", "order"), "", "order")
    chains = (
        ("fast", '["walk"]', "not in [0, 1]", "walk", "Put a re-ranker first"),
        ("slow", '["cut", "order"]', "not the first", "order", "must be the first"),
    )
    for ranking, post, kind, name, says in chains:
        bad = many.good.copy()
        bad.tables[bad.find("[[ranking]]", ranking)].keys["post"] = post
        if ranking == "fast":
            bad.tables[bad.find("[[ranking]]", ranking)].keys["matcher"] = '"pairs"'
        index = bad.find("[[post]]", name)
        many.case(kind, post, bad, index, "", name, says=says)
    bad = readers.good.copy()
    index = bad.find("[[post]]")
    bad.tables[index].keys = {"use": '"toy.times"'}
    readers.case(
        "no time",
        "time",
        bad,
        index,
        "",
        "toy.times",
        says="needs the manifest column time; this data set has camera.",
    )


def repeats(many: Damager, readers: Damager) -> None:
    """The table [repeat]."""
    value = many.value
    value("lists of unequal length", "[repeat]", '"train.seed"', "[0, 1]", "train.seed")
    many.cases[-1] = _at_header(many, many.cases[-1], "[repeat]")
    value("lists of unequal length", "[repeat]", '"optim.lr"', "[0.1]", "optim.lr")
    many.cases[-1] = _at_header(many, many.cases[-1], "[repeat]")
    for bad in ("3", '"x"', "[]", "{}"):
        value("no list to repeat", "[repeat]", '"train.seed"', bad, "train.seed")
    for key, says in (
        ("trian.seed", "did you mean 'train'?"),
        ("loss.clser.margin", "did you mean 'closer'?"),
        ("head.zzz.source", "there are neck, cells, late"),
        ("train.seed.x", "is no table"),
    ):
        kind = "no such table to repeat" if key.startswith("trian") else "no such part to repeat"
        kind = "inside a value" if key.endswith(".x") else kind
        name = key.split(".")[0 if "trian" in key else 1]
        value(
            kind,
            "[repeat]",
            f'"{key}"',
            "[1, 2, 3]",
            name,
            says=says,
            single=not key.endswith(".x"),
        )
    for key, values, kind, says in (
        ("train.sede", "[1, 2, 3]", "misspelt key", "'seed'? (in every repeat)"),
        ("train.epochs", '[1, "2", 3]', "wrong type", "(in repeat 2 of 3: "),
        ("optim.lr", "[1, 2, 0]", "out of range", "optim.lr=0)"),
    ):
        name = key.split(".")[1]
        value(kind, "[repeat]", f'"{key}"', values, name, says=says)


def _at_header(damager: Damager, case: Case, header: str) -> Case:
    return attrs.evolve(case, line=case.text.split("\n").index(header) + 1)


SYNTAX = (
    ("[optim]", "lr", "0.01.5"),
    ("[optim]", "lr", ""),
    ("[optim]", "kind", "sgd"),
    ("[optim]", "kind", '"sgd'),
    ("[data]", "image", "[128, 64"),
    ("[data]", "image", "128, 64"),
    ("[data]", "train", '{ read = "core.demo"'),
    ("[train]", "epochs", "1e"),
    ("[train]", "device", "'cpu"),
    ("[data]", "interpolation", '"""bicubic'),
    ("[train]", "seed", "007"),
    ("[optim]", "momentum", "0,9"),
    ("[train]", "best", '"\\q"'),
    ("[eval]", "memory", "none"),
    ("[eval]", "every", "10 epochs"),
)


def syntax(many: Damager, readers: Damager) -> None:
    """What is not TOML at all."""
    for header, key, value in SYNTAX:
        if key in many.good.tables[many.good.find(header)].keys:
            many.value("not TOML", header, key, value, key)
    for header in ("[train]", "[optim]", "[eval]"):
        for twice in (header, header[:-1], header[1:]):
            bad = many.good.copy()
            bad.tables.append(Table(twice, {}))
            many.case("not TOML", f"twice {twice}", bad, len(bad.tables) - 1, "", twice)
        bad = many.good.copy()
        index = bad.find(header)
        key, value = next(iter(bad.tables[index].keys.items()))
        bad.tables[index].keys[f" {key}"] = value
        many.case("not TOML", f"twice {key}", bad, index, f" {key}", key)
        bad = many.good.copy()
        bad.tables[index].keys = {
            (k.replace(key, f"{key} {key}")): v for k, v in bad.tables[index].keys.items()
        }
        many.case("not TOML", f"two words {key}", bad, index, f"{key} {key}", key)


SETS = (
    ("--set without a value", "train.epochs", "train.epochs", "expected key=value"),
    ("--set without a value", "=3", "=3", "expected key=value"),
    ("--set of no table", "trian.seed=1", "trian", "did you mean 'train'?"),
    ("--set of no table", "zzz.seed=1", "zzz", ""),
    ("--set of no top key", "nam=x", "nam", "did you mean 'name'?"),
    ("--set of no part", "loss.clser.margin=0.1", "clser", "did you mean 'closer'?"),
    ("--set of no part", "head.zzz.source=a.b", "zzz", "there are neck, cells, late"),
    ("--set of no part", "matcher.3.features=[]", "3", "there are look, plain, pairs"),
    ("--set inside a value", "train.seed.x=1", "train.seed", "is no table, but int 3"),
    ("--set inside a value", "loss.id.smoothing.x=1", "loss.id.smoothing", "is no table"),
    ("misspelt key", "train.sede=1", "sede", "did you mean 'seed'?"),
    ("misspelt key", "loss.id.smothing=0.1", "smothing", "did you mean 'smoothing'?"),
    ("wrong type", "train.epochs=many", "epochs", "got text 'many'"),
    ("wrong type", "data.batch.size=4.0", "size", "got float 4.0"),
    ("out of range", "loss.id.smoothing=1", "smoothing", "got 1"),
    ("unknown choice", "optim.kind=sdg", "kind", "did you mean 'sgd'?"),
    ("unknown feature", "matcher.plain.features=['late.pool']", "late.pool", "'late.pooled'?"),
)


def sets(many: Damager, readers: Damager) -> None:
    """Mistakes on the command line; the file itself is good."""
    for kind, item, name, says in SETS:
        text = many.good.text()
        many.cases.append(Case(kind, f"--set {item}", text, name, 0, says, sets=(item,)))


HAND = (
    references,
    components,
    names,
    formats,
    data,
    protocols,
    contradictions,
    repeats,
    syntax,
    sets,
)
