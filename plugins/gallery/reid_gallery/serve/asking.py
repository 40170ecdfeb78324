"""What the page's form asks for, as it stands in an address or in the fields of a form."""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

import attrs
import fastapi
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, QueryParams, UploadFile

from reid_gallery.serve.problems import Problem
from reid_gallery.serve.schemas import Gallery, Id, Model, Text

TOPS = (10, 25, 50)
"""How many pictures the form offers to show."""
STEPS = (1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86_400)
"""Seconds by which the sliders move, and how many moves they have at most."""
MOVES = 500


@attrs.frozen
class Span:
    """What the sliders of time go over, in seconds: from `start` to `end`, by `step`."""

    start: int
    end: int
    step: int

    @classmethod
    def of(cls, gallery: Gallery) -> Span | None:
        """Return the span in which all of a gallery's times are, None if it has none."""
        first, last = gallery.first_time, gallery.last_time
        if first is None or last is None:
            return None
        step = next((one for one in STEPS if last - first <= MOVES * one), 0)
        step = step or math.ceil((last - first) / MOVES / STEPS[-1]) * STEPS[-1]
        start = math.floor(first / step) * step
        # A search is before its end, so that the end is beyond the last time.
        return cls(start, start + (math.floor((last - start) / step) + 1) * step, step)


class Asked(Model):
    """The fields. id: rows of the gallery to search for. box: one for each uploaded picture."""

    id: list[Id] = Field(default_factory=list, max_length=100)
    box: list[Text] = Field(default_factory=list)
    camera: list[Text] = Field(default_factory=list)
    after: Annotated[float, Field(allow_inf_nan=False)] | None = None
    before: Annotated[float, Field(allow_inf_nan=False)] | None = None
    ranking: Text | None = None
    top: Annotated[int, Field(ge=1, le=200)] = TOPS[0]

    @classmethod
    def of(cls, fields: FormData | QueryParams) -> Asked:
        """Return what fields ask for; others are ignored. Raises Problem where one does not fit."""
        given: dict[str, Any] = {}
        for name in cls.model_fields:
            values = [one for one in fields.getlist(name) if isinstance(one, str)]
            if name in ("id", "box", "camera"):
                given[name] = values
            elif values and values[-1]:
                given[name] = values[-1]
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            raise Problem(422, f"{first['loc'][0]}: {first['msg']}") from None

    def within(self, span: Span | None) -> Asked:
        """Return this without the ends of sliders that were left where they are: rows of which no
        time is known are found then."""
        change: dict[str, None] = {}
        if span is None or (self.after is not None and self.after <= span.start):
            change["after"] = None
        if span is None or (self.before is not None and self.before >= span.end):
            change["before"] = None
        return self.model_copy(update=change)


def uploads(fields: FormData) -> list[fastapi.UploadFile]:
    """Return a form's pictures; a browser sends an empty one where none was chosen."""
    given = [one for one in fields.getlist("picture") if isinstance(one, UploadFile)]
    # They are Starlette's, which have all that FastAPI's have.
    return cast(list[fastapi.UploadFile], [one for one in given if one.filename or one.size])
