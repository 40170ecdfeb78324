"""What the page of `reid serve` asks and tells, without a browser."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from starlette.datastructures import FormData, QueryParams

from reid_gallery.serve import schemas
from reid_gallery.serve.asking import MOVES, Asked, Span
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.sightings import clock, found, sentence

LIMITS = schemas.Limits(picture_bytes=1, pictures=1, pixels=1, formats=[])


def gallery(first, last):
    """A gallery of these times."""
    return schemas.Gallery(
        run="r", made_by="r", precision="float32", pictures=1, identities=0, labelled=0,
        cameras=[], first_time=first, last_time=last, columns=[], rankings=["a"], version=1,
        bytes=1, limits=LIMITS,
    )  # fmt: skip


def match(id, distance=0.1, camera="1", time=None, probability=None, rank=1):
    return schemas.Match(
        id=id, name=f"{id}.jpg", box=None, camera=camera, time=time, modality=None, identity=None,
        tracklet=None, added=datetime.now(UTC), rank=rank, distance=distance,
        probability=probability,
    )  # fmt: skip


@pytest.mark.parametrize(
    "first, last",
    [(0, 0), (0.25, 0.75), (100, 1690), (1796040000, 1796051433), (1e9 + 0.5, 2e9), (-70, 5),
     (0, 1e12)],
)  # fmt: skip
def test_sliders_go_over_all_times(first, last):
    span = Span.of(gallery(first, last))
    assert span.start <= first and last < span.end, "a search ends before its end"
    assert (span.end - span.start) % span.step == 0, "a slider reaches its end"
    assert 1 <= (span.end - span.start) // span.step <= MOVES + 2


def test_sliders_at_their_ends_ask_for_nothing():
    span = Span.of(gallery(100, 900))
    left = Asked.of(QueryParams(f"after={span.start}&before={span.end}")).within(span)
    assert (left.after, left.before) == (None, None)
    moved = Asked.of(QueryParams(f"after={span.start + 1}&before={span.end - 1}")).within(span)
    assert (moved.after, moved.before) == (span.start + 1, span.end - 1)
    assert Span.of(gallery(None, None)) is None
    assert Asked(after=3.0, before=4.0).within(None) == Asked()


@pytest.mark.parametrize(
    "fields", ["id=x", "id=-1", f"id={2**63}", "top=0", "top=201", "after=nan", "after=soon"]
)
def test_fields_that_do_not_fit_are_told(fields):
    with pytest.raises(Problem) as refused:
        Asked.of(QueryParams(fields))
    assert refused.value.detail.startswith(f"{fields.split('=')[0]}: ")


def test_fields_that_are_not_asked_for_are_left():
    form = FormData([("camera", "1"), ("camera", "2"), ("csrf_token", "x"), ("after", "")])
    assert Asked.of(form) == Asked(camera=["1", "2"])


@pytest.mark.parametrize(
    "seconds, said",
    [(None, ""), (0, "0:00:00"), (3725.9, "1:02:05"), (-61, "-0:01:01"), (1e15, f"{10**15} s"),
     (1796040877, "30 Nov 2026, 12:14:37")],
)  # fmt: skip
def test_times_in_words(seconds, said):
    assert clock(seconds) == said


def test_a_match_belongs_to_its_nearest_picture():
    one, other = match(7, 0.5), match(7, 0.2)
    answers = [
        schemas.Answer(query="picture 1", unknown=False, matches=[one, match(8, 0.3)]),
        schemas.Answer(query="picture 2", unknown=False, matches=[other]),
    ]
    told = found(answers, [other, match(8, 0.3)])
    assert [one.query for one in told.sightings] == ["picture 2", "picture 1"]


def told(*matches):
    return found([schemas.Answer(query="row 1", unknown=False, matches=[*matches])], [*matches])


def test_the_summary_counts_who_is_likely_the_same():
    likely = [match(1, probability=0.9), match(2, probability=0.5), match(3, camera="2",
              probability=0.7), match(4, camera="3", probability=0.49)]  # fmt: skip
    said = told(*likely).summary
    assert said.startswith("Probably seen by camera 1 (2 times) and camera 2. Here are the 4 ")
    assert told(likely[3]).summary.startswith("Probably not seen here. Here is the most similar")
    assert "who is the same person" in told(match(1), match(2)).summary
    assert told().summary == "No picture fits. Choose more cameras, or a longer time."


def test_percentages_never_claim_certainty():
    chances = [told(match(1, probability=one)).sightings[0] for one in (1, 0.999, 0.9, 0.001, 0)]
    assert [one.chance for one in chances] == ["over 99%", "over 99%", "90%"] + ["under 1%"] * 2
    assert chances[2].words == "very likely the same person"


def test_the_timeline_leaves_out_what_has_no_time():
    line = told(match(1, time=200), match(2), match(3, time=100, camera=None)).timeline
    assert line.undated == 1
    lanes = {lane.where: [(point.left, point.sighting.match.id) for point in lane.points]
             for lane in line.lanes}  # fmt: skip
    assert lanes == {"camera 1": [(97.0, 1)], "a camera that is not known": [(3.0, 3)]}
    assert line.ticks == ["0:01:40", "0:02:30", "0:03:20"]
    assert told(match(1, time=5), match(2, time=5)).timeline.ticks == ["0:00:05"]
    assert told(match(1)).timeline.lanes == []


def test_problems_are_sentences():
    assert sentence("picture 1 is empty") == "Picture 1 is empty."
    assert sentence("Load it again!") == "Load it again!"
