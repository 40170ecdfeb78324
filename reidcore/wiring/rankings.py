"""Checks rankings: their matchers, scales, shortlists and chains of postprocessors. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.wiring_methods import Unkept, call_wiring
from reidcore.errors import PluginError, UsageError
from reidcore.runfiles.tables import FITTED, RankingTable
from reidcore.wiring.parts import PartLoader
from reidcore.wiring.plan import Plan, Wired
from reidcore.wiring.references import suggestion


def check_rankings(
    loader: PartLoader, given: Given, posts: Sequence[Wired], has_tests: bool
) -> tuple[RankingTable, ...]:
    """Return the run's rankings, after noting their problems.

    Chains of postprocessors are checked if there are test sets, whose columns `given` has, or if
    the run file has no data at all.
    """
    run = loader.run
    rankings = list(run.rankings) or _usual_rankings(loader)
    if not rankings:
        return ()
    by_name = {post.part.name: post for post in posts}
    for index, ranking in enumerate(rankings):
        _check_matchers(loader, ranking, index)
        whole = _check_posts(loader, ranking, index)
        ready = given.matchers.keys() >= set(ranking.matchers)
        if whole and ready and (has_tests or not run.sources):
            promised = {name: found.unit for name, found in given.matchers.items()}
            follow_chain(
                ranking,
                promised,
                given,
                by_name,
                lambda post, here: _checked(loader, post, here),
            )
    used = {name for ranking in rankings for name in ranking.post}
    for part in run.of("post"):
        if part.name not in used and part.role not in loader.failed:
            loader.problems.add(part.path, str(part), "no [[ranking]] names it in its 'post'")
    return tuple(rankings)


def _checked(loader: PartLoader, post: Wired, given: Given) -> bool:
    """Return whether a postprocessor's results lie in [0, 1]; as if they did where it is refused,
    so that those behind it are not refused for the same mistake."""
    role = post.part.role
    before = role in loader.failed
    loader.failed.discard(role)
    unit = bool(loader.call(post, "check", given)) or role in loader.failed
    if before:
        loader.failed.add(role)
    return unit


def _usual_rankings(loader: PartLoader) -> list[RankingTable]:
    """Return the ranking of a run that states none: its only matcher and all postprocessors."""
    run = loader.run
    names = [part.name for part in run.of("matcher")]
    posts = [part.name for part in run.of("post")]
    if len(names) == 1:
        return [RankingTable(name="main", matcher=names[0], post=posts)]
    if names:
        text = (
            f"there are several [[matcher]] ({', '.join(names)}) and no [[ranking]] that says "
            "which of them rank the gallery"
        )
        loader.problems.add((), "", text)
    elif posts or any(source.role == "test" for source in run.sources):
        text = "there is no [[matcher]], which ranking the test data needs"
        loader.problems.add((), "", text)
    return []


def _check_matchers(loader: PartLoader, ranking: RankingTable, index: int) -> None:
    """Note matchers that do not exist, in the ranking or its shortlist, and a scale that cannot be
    fitted."""
    run = loader.run
    names = [part.name for part in run.of("matcher")]

    def refuse(key: str, text: str) -> None:
        loader.problems.add(("ranking", index, key), f"ranking {ranking.name!r}", text)

    for name in ranking.weights:
        if name not in names:
            key = "fuse" if ranking.fuse else "matcher"
            refuse(key, f"{key} names {name!r}{suggestion(name, names)}")
    if ranking.shortlist is not None:
        by = ranking.shortlist.by
        if by not in names:
            refuse("shortlist", f"shortlist.by names {by!r}{suggestion(by, names)}")
        elif [by] == list(ranking.weights):
            refuse(
                "shortlist",
                f"shortlist.by is the ranking's own matcher {by!r}, which scores all pictures "
                "to choose; name a faster one",
            )
    if ranking.scale in FITTED and not any(source.role == "train" for source in run.sources):
        refuse(
            "scale",
            f"scale = {ranking.scale!r} is fitted on training pairs, but [data] has no 'train'",
        )


def _check_posts(loader: PartLoader, ranking: RankingTable, index: int) -> bool:
    """Return whether the ranking names each of its postprocessors once; note what it does not."""
    path, place = ("ranking", index, "post"), f"ranking {ranking.name!r}"
    posts = [part.name for part in loader.run.of("post")]
    for name in ranking.post:
        if name not in posts:
            text = f"post names {name!r}{suggestion(name, posts)}"
            loader.problems.add(path, place, text)
    twice = [name for name in posts if ranking.post.count(name) > 1]
    if twice:
        text = f"post names {', '.join(map(repr, twice))} more than once"
        loader.problems.add(path, place, text)
    return not twice


def follow_chain(
    ranking: RankingTable,
    promised: Mapping[str, bool],
    given: Given,
    posts: Mapping[str, Wired | None],
    check: Callable[[Wired, Given], Any],
) -> bool:
    """Call `check` for every postprocessor of a ranking, with `given` as it is at its place.

    promised: for each matcher, whether its distances lie in [0, 1]. check: returns whether the
    postprocessor's results do, None after noting that it does not fit. Returns whether the last
    distances lie in [0, 1].
    """
    unit = ranking.unit(promised)
    before = _sources(ranking)
    for position, name in enumerate(ranking.post):
        post = posts.get(name)
        if post is None:
            unit = True  # its own failure is reported
            before = f"postprocessor {name!r}"
            continue
        here = attrs.evolve(
            given,
            unit=unit,
            first=position == 0,
            ranking=ranking.name,
            before=before,
            by_row=ranking.scale == "row_minmax",
            shortlisted=ranking.shortlist is not None,
        )
        found = check(post, here)
        unit = found is None or bool(found)
        before = str(post.part)
    return unit


def _sources(ranking: RankingTable) -> str:
    """Return words for the matchers whose distances a ranking's postprocessors begin with."""
    names = [repr(name) for name in ranking.weights]
    if len(names) == 1:
        return f"matcher {names[0]}"
    return f"matchers {', '.join(names[:-1])} and {names[-1]}, added up"


def check_chain(plan: Plan, ranking: RankingTable, columns: frozenset[str]) -> None:
    """Raise `UsageError` if a ranking's postprocessors do not fit pictures that have these
    optional manifest columns."""

    def check(post: Wired, here: Given) -> Any:
        try:
            return call_wiring(post.part.kind, post.config, "check", here)
        except WiringError as error:
            raise UsageError(f"ranking {ranking.name!r}: {post.part}: {error}") from None
        except Unkept as error:
            raise PluginError(f"ranking {ranking.name!r}: {post.part}: check(): {error}") from None

    posts = {wired.part.name: wired for wired in plan.posts}
    promised = {name: plan.matching(name).unit for name in ranking.weights}
    given = attrs.evolve(plan.given, test_columns=columns, gaps={})
    follow_chain(ranking, promised, given, posts, check)
