"""What requests and answers of the service hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_IDS = 1000
Text = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
Id = Annotated[int, Field(ge=0, lt=2**63)]


class Model(BaseModel):
    """A table of JSON; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Picture(Model):
    """A picture of the gallery. name: of its file. time: in seconds. columns: the user's own."""

    id: int
    name: str
    box: str | None
    camera: str | None
    time: float | None
    modality: str | None
    identity: str | None
    tracklet: str | None
    added: datetime
    columns: dict[str, Any] = {}


class Match(Picture):
    """A picture that a query was matched with. probability: that both show one identity."""

    rank: int
    distance: float
    probability: float | None


class Answer(Model):
    """A query, such as "picture 1" or "row 17", with its matches, nearest first."""

    query: str
    unknown: bool
    matches: list[Match]


class Answers(Model):
    """What a search has found: an answer to each query, or one to all of them together."""

    answers: list[Answer]


class Damaged(Model):
    """An upload that was left out, by its number in the request, and why."""

    picture: int
    detail: str


class Added(Model):
    """What was added. ids: of each upload's row, None for a damaged one. skipped: of these, how
    many were there already."""

    ids: list[int | None]
    added: int
    skipped: int
    damaged: list[Damaged]


class Rows(Model):
    """Names rows: by ids, by conditions, or both, which all are to be met."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)] | None = None
    camera: list[Text] | None = None
    after: Text | float | None = None
    before: Text | float | None = None
    where: Text = ""


class Label(Rows):
    """Says who is on rows; "" takes a name away."""

    identity: Text | None = None
    tracklet: Text | None = None


class Forget(Rows):
    """Names rows to forget. identity: only those of this name."""

    identity: Text | None = None


class Count(Model):
    """How many rows a change was about."""

    rows: int


class Limits(Model):
    """What uploads are bounded by."""

    picture_bytes: int
    pictures: int
    pixels: int
    formats: list[str]


class Gallery(Model):
    """What the gallery holds, in numbers, and what it can be asked."""

    run: str
    made_by: str
    precision: str
    pictures: int
    identities: int
    labelled: int
    cameras: list[str]
    first_time: float | None
    last_time: float | None
    columns: list[str]
    rankings: list[str]
    version: int
    bytes: int | None
    limits: Limits


class Health(Model):
    """That the service answers, and how many pictures wait for its network."""

    status: str
    waiting: int


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []
