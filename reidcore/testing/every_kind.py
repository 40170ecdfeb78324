"""Checks of components of every kind."""

from __future__ import annotations

import copy

import attrs

from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.search.part_explanations import explained_match, explained_part
from reidcore.support.wording import few
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample
from reidcore.testing.toy_inputs import batch_of
from reidcore.training.dry_run import dry_run
from reidcore.wiring.plan import Plan


def settings_are_documented(sample: Sample) -> None:
    """The component has a summary, and each of its settings a text."""
    component = sample.component.component
    wrong = [] if component.summary else ["it has no summary"]
    wrong += [
        f"setting {field.name!r} has no doc; declare it with reidcore.api.setting"
        for field in attrs.fields(component.config)
        if field.init and not field.metadata.get("doc")
    ]
    if wrong:
        raise ConformanceError("; ".join(wrong))


def sample_runs_dry(sample: Sample) -> None:
    """The sample is a run file that has the component, is wired and passes the dry run; what the
    component explains is as `explain` promises."""
    plan = sample.plan()
    sample.instances(plan)  # raises where it has none
    readers = {source.reader.use for source in plan.runfile.sources if source.reader}
    if sample.component.kind == "reader" and sample.component.name not in readers:
        raise ConformanceError(f"its sample does not read with it, but {few(sorted(readers))}")
    settings = copy.deepcopy(plan.resolved())
    model = build_model(plan, 0)
    dry_run(plan, model)
    _check_explanations(sample, plan, model.eval())
    if repr(plan.resolved()) != repr(settings):
        raise ConformanceError("what is built of its settings changes them; declare them frozen")


def settings_are_frozen(sample: Sample) -> None:
    """No setting can be given another value, so that the run record says what was built."""
    config = sample.component.component.config
    for field in attrs.fields(config):
        try:
            setattr(object.__new__(config), field.name, None)
        except attrs.exceptions.FrozenError:
            continue
        except Exception:
            pass  # a validator's complaint, or one of the class itself
        raise ConformanceError(
            f"the setting {field.name!r} of {config.__name__} can be changed; decorate the class "
            "with attrs.frozen"
        )


def _check_explanations(sample: Sample, plan: Plan, model: Model) -> None:
    parts, images = dict(model.parts()), batch_of(plan).images
    mine = [wired for wired in sample.instances(plan) if wired.part.role in parts]
    features = model(images) if mine else {}
    for wired in mine:
        part = parts[wired.part.role]
        if wired.matching is not None:
            explained_match(wired, part, features)
        else:
            explained_part(wired, part, features, images)


def fits_two_picture_sizes(sample: Sample) -> None:
    """Shapes are as declared at the sample's picture size and at another, which the component may
    refuse by naming a setting of its own."""
    for plan in sample.plans():
        dry_run(plan, build_model(plan, 0))
