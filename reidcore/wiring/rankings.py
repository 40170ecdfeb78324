"""Checks rankings: their matchers, scales, shortlists and chains of postprocessors. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import Matching
from reidcore.contracts.given import Given, WiringError
from reidcore.data.datasets import DataPlan
from reidcore.errors import UsageError
from reidcore.runfiles.tables import FITTED, RankingTable
from reidcore.wiring.parts import _Resolver
from reidcore.wiring.plan import Plan, Wired
from reidcore.wiring.references import _suggest


def _rankings(
    resolver: _Resolver,
    given: Given,
    matchers: Mapping[str, Matching],
    posts: Sequence[Wired | None],
    data: DataPlan,
) -> tuple[RankingTable, ...]:
    run = resolver.run
    names = [part.name for part in run.of("matcher")]
    by_name = {post.part.name: post for post in posts if post is not None}
    all_posts = [part.name for part in run.of("post")]
    rankings = list(run.rankings)
    if not rankings:
        if len(names) > 1:
            resolver.problems.add(
                (),
                "",
                f"there are several [[matcher]] ({', '.join(names)}) and no [[ranking]] that says "
                "which of them rank the gallery",
            )
            return ()
        if not names:
            if any(source.role == "test" for source in run.sources) or all_posts:
                resolver.problems.add(
                    (), "", "there is no [[matcher]], which ranking the test data needs"
                )
            return ()
        rankings = [RankingTable(name="main", matcher=names[0], post=all_posts)]
    used: set[str] = set()
    for index, ranking in enumerate(rankings):
        path, place = ("ranking", index), f"ranking {ranking.name!r}"
        for name in ranking.weights:
            if name not in names:
                key = "fuse" if ranking.fuse else "matcher"
                resolver.problems.add(
                    (*path, key), place, f"{key} names {name!r}{_suggest(name, names)}"
                )
        if ranking.shortlist is not None:
            by = ranking.shortlist.by
            if by not in names:
                text = f"shortlist.by names {by!r}{_suggest(by, names)}"
                resolver.problems.add((*path, "shortlist"), place, text)
            elif [by] == list(ranking.weights):
                resolver.problems.add(
                    (*path, "shortlist"),
                    place,
                    f"shortlist.by is the ranking's own matcher {by!r}, which scores all pictures "
                    "to choose; name a faster one",
                )
        if ranking.scale in FITTED and not any(source.role == "train" for source in run.sources):
            resolver.problems.add(
                (*path, "scale"),
                place,
                f"scale = {ranking.scale!r} is fitted on training pairs, but [data] has no 'train'",
            )
        for name in ranking.post:
            used.add(name)
            if name not in all_posts:
                resolver.problems.add(
                    (*path, "post"), place, f"post names {name!r}{_suggest(name, all_posts)}"
                )
        twice = [name for name in all_posts if ranking.post.count(name) > 1]
        if twice:
            text = f"post names {', '.join(map(repr, twice))} more than once"
            resolver.problems.add((*path, "post"), place, text)
            continue
        if not matchers.keys() >= set(ranking.matchers):
            continue
        if data.test or not run.sources:
            promised = {name: found.unit for name, found in matchers.items()}
            follow_chain(
                ranking,
                promised,
                given,
                by_name,
                lambda post, here: resolver.call(post, "check", here),
            )
    for part in run.of("post"):
        if part.name not in used and part.role not in resolver.failed:
            resolver.problems.add(part.path, str(part), "no [[ranking]] names it in its 'post'")
    return tuple(rankings)


def follow_chain(
    ranking: RankingTable,
    promised: Mapping[str, bool],
    given: Given,
    posts: Mapping[str, Wired | None],
    check: Callable[[Wired, Given], Any],
) -> bool:
    """Asks every postprocessor of a ranking whether it fits what comes before it; `promised` says
    whose matchers' distances lie in [0, 1]. Returns whether the chain's do."""
    unit = ranking.unit(promised)
    given = attrs.evolve(
        given, by_row=ranking.scale == "row_minmax", shortlisted=ranking.shortlist is not None
    )
    for position, name in enumerate(ranking.post):
        post = posts.get(name)
        if post is None:
            unit = True  # its own failure is reported
            continue
        unit = bool(check(post, attrs.evolve(given, unit=unit, first=position == 0)))
    return unit


def check_chain(plan: Plan, ranking: RankingTable, columns: frozenset[str]) -> None:
    """Whether a ranking's postprocessors fit pictures that have these optional manifest columns;
    `UsageError` if not."""

    def check(post: Wired, here: Given) -> Any:
        try:
            return post.config.check(here)
        except WiringError as error:
            raise UsageError(f"ranking {ranking.name!r}: {post.part}: {error}") from None

    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    follow_chain(ranking, promised, attrs.evolve(plan.given, test_columns=columns), posts, check)
