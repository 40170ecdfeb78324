"""Checks of postprocessors, procedures, readers, samplers and augmentations."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Facts, Row
from reidcore.contracts.given import WiringError
from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Meta
from reidcore.contracts.rows import columns
from reidcore.data.manifest import find_data
from reidcore.model.building import build_part
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import build_postprocessor
from reidcore.ranking.scorer import make_fusion
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import take
from reidcore.runfiles.tables import RankingTable
from reidcore.support.progress import Silent
from reidcore.support.wording import in_words
from reidcore.testing.failures import ConformanceError
from reidcore.testing.stands import (
    Stand,
    ToyAsk,
    batch_of,
    meta_of,
    pictures,
    same,
    template_of,
    toy_rows,
    trained,
    with_global_seed,
)
from reidcore.wiring.plan import Plan
from reidcore.wiring.rankings import follow_chain

Side = tuple[dict[str, Template], Meta]
"""Templates by matcher, and what ranking may know of the pictures."""


def _chains(stand: Stand, plan: Plan) -> list[tuple[RankingTable, str]]:
    """(ranking, post) wherever the sample ranks with the component."""
    mine = {wired.part.name for wired in stand.instances(plan)}
    found = [(ranking, name) for ranking in plan.rankings for name in ranking.post if name in mine]
    if not found:
        raise ConformanceError("its sample has no ranking with it")
    return found


def _sides(plan: Plan, model: Model, ranking: RankingTable) -> tuple[Side, Side]:
    sides = []
    for size, seed in ((6, 0), (14, 100)):
        images = pictures(plan, size, seed)
        templates = {
            name: template_of(model, model.matchers[name], images) for name in ranking.matchers
        }
        sides.append((templates, meta_of(images, seed)))
    return sides[0], sides[1]


def _pairs(plan: Plan, model: Model, ranking: RankingTable) -> dict[str, Pairs]:
    """Distances of a random batch's pairs, for scales that are fitted."""
    batch = batch_of(plan)
    same = batch.pid[:, None] == batch.pid
    found = {}
    for name in ranking.weights:
        template = template_of(model, model.matchers[name], batch.images)
        distances = model.matchers[name].distance(template, template).detach()
        found[name] = Pairs(distances[same], distances[~same])
    return found


def _apply(
    plan: Plan, model: Model, ranking: RankingTable, last: str, query: Side, gallery: Side
) -> Tensor:
    """The distances after the post `last`."""
    sides = Sides(query[1], gallery[1], {"query": query[0], "gallery": gallery[0]})
    pairs = _pairs(plan, model, ranking)
    context = MatcherRanking(make_fusion(ranking, model, pairs), sides)
    found = context.between("query", "gallery", 0, len(query[1]))
    distances = context.before_postprocessing(found)
    posts = {wired.part.name: wired for wired in plan.posts}
    for name in ranking.post[: ranking.post.index(last) + 1]:
        distances = build_postprocessor(plan, posts[name])(distances, context)
    return distances.clone()


def changes_only_the_distances(stand: Stand) -> None:
    """Templates, cameras, times and the model are as before; the result is in [0, 1] if promised,
    and the same a second time."""
    plan = stand.plan()
    model = trained(plan)
    for ranking, name in _chains(stand, plan):
        query, gallery = _sides(plan, model, ranking)
        things: dict[str, Any] = {"the model": model.sections()}
        for side, (templates, meta) in (("query", query), ("gallery", gallery)):
            things[f"the {side} templates"] = templates
            things |= {f"{side}.{key}": value for key, value in attrs.asdict(meta).items()}
        before = _copied(things)
        first = _apply(plan, model, ranking, name, query, gallery)
        changed = [key for key in things if not same(before[key], things[key])]
        if changed:
            raise ConformanceError(f"it changes {', '.join(changed)}")
        if not same(first, _apply(plan, model, ranking, name, query, gallery)):
            raise ConformanceError("called a second time, it gives other distances")
        low, high = float(first.min()), float(first.max())
        if _stays_unit(plan, ranking, name) and not (low >= -1e-5 and high <= 1 + 1e-5):
            raise ConformanceError(f"it promises [0, 1], but gives {low:g} to {high:g}")


def names_a_missing_column(stand: Stand) -> None:
    """Without cameras, times and modalities it is refused by a sentence that names what is missing,
    or gives finite distances all the same."""
    plan = stand.plan()
    model = trained(plan)
    for wired in stand.instances(plan):
        for missing in ("camera", "time", "modality"):
            columns = plan.given.test_columns - {missing}
            given = attrs.evolve(plan.given, test_columns=columns, unit=True)
            try:
                wired.config.check(given)
            except WiringError as error:
                if missing not in str(error):
                    raise ConformanceError(
                        f"without the column {missing} its check() says {str(error)!r}, which does "
                        "not name it; use given.need_column"
                    ) from None
            else:
                _without(stand, plan, model, wired.part.name, missing)


def _without(stand: Stand, plan: Plan, model: Model, name: str, missing: str) -> None:
    unknown = {"camera": -1, "time": torch.nan, "modality": 0}[missing]
    for ranking, post in _chains(stand, plan):
        if post == name:
            sides = [
                (
                    templates,
                    attrs.evolve(
                        meta, **{missing: torch.full_like(getattr(meta, missing), unknown)}
                    ),
                )
                for templates, meta in _sides(plan, model, ranking)
            ]
            _apply(plan, model, ranking, name, *sides)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return value.clone()


def _stays_unit(plan: Plan, ranking: RankingTable, last: str) -> bool:
    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    chain = attrs.evolve(ranking, post=ranking.post[: ranking.post.index(last) + 1])
    return follow_chain(
        chain, promised, plan.given, posts, lambda post, given: post.config.check(given)
    )


def follows_the_gallery_order(stand: Stand) -> None:
    """With the gallery in another order, the distances are the same in that order."""
    plan = stand.plan()
    model = trained(plan)
    for ranking, name in _chains(stand, plan):
        query, (templates, meta) = _sides(plan, model, ranking)
        order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(0))
        mixed = {key: take(template, order) for key, template in templates.items()}
        there = _apply(plan, model, ranking, name, query, (templates, meta))[:, order]
        here = _apply(plan, model, ranking, name, query, (mixed, meta[order]))
        if not torch.allclose(here, there, rtol=1e-4, atol=1e-5):
            worst = float((here - there).abs().max())
            raise ConformanceError(
                f"with the gallery in another order, distances differ by up to {worst:g}"
            )


class _Stop(BaseException):
    """Ends a run as a kill does."""


class _Stopping(Silent):
    def epoch_ended(self, means: Mapping[str, float]) -> None:
        raise _Stop


def resumes_to_the_same_end(stand: Stand) -> None:
    """Two epochs of the sample, and one, broken off, resumed, leave the same weights and scores.
    Passes where the sample's data are absent."""
    from reidcore.errors import DataError
    from reidcore.training.start import run_training
    from reidcore.wiring.make_plan import make_plan

    run = stand.run("train.epochs=2", "train.device=cpu")
    try:
        plan = make_plan(run, stand.plugins, make_data=True)
    except DataError:
        return
    with tempfile.TemporaryDirectory() as base:
        whole, broken = Path(base, "whole"), Path(base, "broken")
        whole.mkdir()
        broken.mkdir()
        run_training(plan, stand.plugins, whole, (), Silent())
        try:
            run_training(plan, stand.plugins, broken, (), _Stopping())
        except _Stop:
            run_training(plan, stand.plugins, broken, (), Silent())
        else:
            raise ConformanceError("it does not count its epochs with run.epochs")
        for name in ("weights.safetensors", "scores.json"):
            files = [folder / name for folder in (whole, broken)]
            if files[0].exists() and files[0].read_bytes() != files[1].read_bytes():
                raise ConformanceError(
                    f"a resumed run ends with another {name}; give run.epochs everything that has "
                    "a state, and draw random numbers within epochs only"
                )


def facts_fit_the_rows(stand: Stand) -> None:
    """Where the data are at hand, or are made, the rows are as the reader's facts say. Data that
    are absent are not asked for."""
    for source in stand.run().sources:
        if source.reader is None or source.reader.use != stand.component.name:
            continue
        from reidcore.runfiles.strict import structure

        config, faults = structure(stand.component.component.config, source.reader.table)
        if config is None:
            raise ConformanceError("; ".join(fault.text for fault in faults))
        with tempfile.TemporaryDirectory() as base:
            made = not source.root and hasattr(config, "default_root")
            root = Path(base, "made") if made else find_data(source.root)
            if made or root.exists():
                _check_rows(config, root)


def _check_rows(config: Any, root: Path) -> None:
    facts, rows = config.facts(), config.rows(root)
    if rows != config.rows(root):
        raise ConformanceError("read twice, the rows differ")
    train = [row for row in rows if row.split == "train"]
    test = [row for row in rows if row.split in ("query", "gallery")]
    counts = Counter(row.split for row in rows)
    wrong = []
    for what, declared, found in (
        ("identities", facts.identities, len({row.pid for row in train})),
        ("cameras", set(facts.cameras), {row.camera for row in train if row.camera}),
        ("modalities", set(facts.modalities), {row.modality for row in rows if row.modality}),
        ("columns of train", facts.columns, columns(train)),
        ("columns of query and gallery", facts.columns, columns(test) if test else facts.columns),
        ("counts", dict(facts.counts), {split: counts[split] for split in facts.counts}),
        *_groups(facts, rows),
    ):
        if declared != found:
            wrong.append(f"{what} are declared as {declared}, but the rows have {found}")
    absent = [row.path for row in rows if not Path(row.path).is_absolute()]
    absent += [row.path for row in rows if not Path(row.path).exists()]
    if absent:
        wrong.append(f"{len(absent)} pictures are not there, such as {absent[0]}")
    if wrong:
        raise ConformanceError("; ".join(wrong))


def _groups(facts: Facts, rows: Sequence[Row]) -> Iterator[tuple[str, Any, Any]]:
    """(what, declared, found) of groups of splits; those without rows are not at hand."""
    seen: Counter[str] = Counter()
    for group, declared in facts.groups.items():
        people = {row.pid for row in rows if row.split in group}
        seen.update(people)
        if people:
            yield f"identities of {' and '.join(group)}", declared, len(people)
    if facts.groups:
        twice = sum(count > 1 for count in seen.values())
        yield "identities in two groups", 0, twice
        yield "identities", facts.identities, facts.identities_in(["train"])


def order_follows_from_the_generator(stand: Stand) -> None:
    """Batches follow from rows and generator alone, not from global random numbers or earlier
    epochs; their indices are valid and their shape is as declared."""
    plan = stand.plan()
    (wired,) = stand.instances(plan)
    shape = wired.config.batch()
    identities = min(plan.given.identities, max(4, 2 * (shape.ids or 2)))
    rows, ask = toy_rows(plan.given, identities, max(4, shape.per_id or 1)), ToyAsk(plan.given)

    def epoch(sampler: Any, seed: int, other: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed(seed)
        return with_global_seed(other, lambda: _drawn(sampler.epoch(rows, draw, ask)))

    sampler = with_global_seed(0, lambda: build_part(plan, wired))
    first = epoch(sampler, 1, other=1)
    epoch(sampler, 2, other=2)
    again = with_global_seed(0, lambda: build_part(plan, wired))
    for what, found in (
        ("another state of the global generators", epoch(again, 1, other=3)),
        ("another epoch before it", epoch(sampler, 1, other=1)),
    ):
        if found != first:
            raise ConformanceError(f"with {what}, the same generator gives another order")
    if not first:
        raise ConformanceError(f"it gives no batch of {len(rows)} pictures")
    for batch in first:
        if not all(0 <= index < len(rows) for index in batch):
            raise ConformanceError(f"a batch has indices outside of {len(rows)} rows: {batch}")
        labels = Counter(int(rows.pid[index]) for index in batch)
        for what, declared, numbers in (
            ("pictures", shape.size, {len(batch)}),
            ("identities", shape.ids, {len(labels)}),
            ("pictures of an identity", shape.per_id, set(labels.values())),
        ):
            if declared is not None and numbers != {declared}:
                raise ConformanceError(
                    f"declared are {declared} {what} in a batch, but one has {sorted(numbers)}"
                )


def _drawn(batches: Any) -> list[list[int]]:
    drawn = [[int(index) for index in batch] for batch in itertools.islice(batches, 10**4)]
    if len(drawn) == 10**4:
        raise ConformanceError("an epoch does not end")
    return drawn


def change_follows_from_the_generator(stand: Stand) -> None:
    """A changed picture is uint8 of the same size and follows from picture and generator alone."""
    for plan in stand.plans():
        height, width = plan.given.image
        for wired in stand.instances(plan):
            for seed in range(8):
                draw = torch.Generator().manual_seed(seed)
                picture = torch.randint(0, 256, (3, height, width), generator=draw).to(torch.uint8)
                found = [_changed(plan, wired, picture, seed, other) for other in (1, 2)]
                if found[0].shape != picture.shape or found[0].dtype != torch.uint8:
                    raise ConformanceError(
                        f"uint8 {list(picture.shape)} becomes {found[0].dtype} "
                        f"{list(found[0].shape)}"
                    )
                if not torch.equal(found[0], found[1]):
                    raise ConformanceError("with the same generator it gives another picture")


def _changed(plan: Plan, wired: Any, picture: Tensor, seed: int, other: int) -> Tensor:
    augment = build_part(plan, wired)
    draw = torch.Generator().manual_seed(seed)
    found = with_global_seed(other, lambda: augment(picture.clone(), draw))
    if not isinstance(found, Tensor):
        raise ConformanceError(f"it gives {in_words(TypeError(type(found).__name__))}")
    return found
