"""The dry run: what it finds before training, and that it leaves the model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from running import TINY

from reidcore.builtin.reranking import Rerank
from reidcore.errors import PluginError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import dry_run, random_batch, train_once
from reidcore.wiring.make_plan import make_plan


@pytest.fixture
def model() -> Model:
    run = parse_runfile(TINY, Path("tiny.toml"), [])
    return build_model(make_plan(run, Plugins([]), allow_missing=True), 0)


def broken(monkeypatch, part: torch.nn.Module, change: Any) -> None:
    """Replaces the forward of the part's class by change(forward)."""
    kind = type(part)
    monkeypatch.setattr(kind, "forward", change(kind.forward))


def refusal(model: Model) -> str:
    with pytest.raises(PluginError) as caught:
        dry_run(model.plan, model)
    return str(caught.value)


def test_a_good_model_passes_and_stays_as_it_was(model):
    """No notes, no weight moves, and a step on the model itself leaves no trace on its parts."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert dry_run(model.plan, model) == []
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert train_once(model.plan, model, random_batch(model.plan, model.device)) == []
    after = model.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    for _, part in model.parts():
        assert not {"forward", "before_training", "after_step", "after_epoch"} & set(vars(part))


@pytest.mark.parametrize("training", [True, False])
def test_a_failing_part_is_named(model, monkeypatch, training):
    """Also where it fails in evaluation alone."""

    def change(forward):
        def failing(self, *given):
            if self.training == training:
                raise ValueError("too small")
            return forward(self, *given)

        return failing

    broken(monkeypatch, model.backbone, change)
    said = refusal(model)
    assert said.startswith("dry run: backbone (core.resnet): forward failed: ValueError: too small")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: {**made, "other": made["bn"]}, "gives undeclared output other"),
        (lambda made: {"pooled": made["pooled"]}, "does not give output bn"),
        (lambda made: {**made, "bn": made["bn"][:, 1:]}, "output 'bn' is declared as "),
        (lambda made: {**made, "bn": made["bn"] / 0}, "output 'bn' is not finite"),
    ],
)
def test_wrong_outputs_are_named(model, monkeypatch, change, words):
    head = model.heads["neck"]
    broken(monkeypatch, head, lambda forward: lambda self, *given: change(forward(self, *given)))
    said = refusal(model)
    assert said.startswith("dry run: head 'neck' (core.bnneck): ") and words in said


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda value: value.expand(2), "the loss is torch.float32 [2], not a scalar"),
        (lambda value: value / 0, "the loss is inf"),
        (
            lambda value: (value, {"term": torch.zeros(2)}),
            "its term 'term' is torch.float32 [2], not a number",
        ),
        (lambda value: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_wrong_loss_is_named(model, monkeypatch, result, words):
    """What is no finite number, and logged terms that are no numbers."""

    def change(forward):
        def wrong(self, *given):
            made = forward(self, *given)
            return result(made[0] if isinstance(made, tuple) else made)

        return wrong

    broken(monkeypatch, model.losses["id"], change)
    said = refusal(model)
    assert said.startswith("dry run: loss 'id' (core.softmax): forward failed: ") and words in said


def test_a_failing_moment_is_named(model, monkeypatch):
    def failing(self, *given):
        raise KeyError("id.accuracy")

    for moment in ("before_training", "after_step", "after_epoch"):
        with monkeypatch.context() as patch:
            patch.setattr(type(model.losses["triplet"]), moment, failing, raising=False)
            assert f"loss 'triplet' (core.triplet): {moment} failed: KeyError" in refusal(model)


def test_parameters_without_gradient_are_noted(model):
    model.heads["neck"].lonely = torch.nn.Parameter(torch.zeros(1))
    assert dry_run(model.plan, model) == ["no gradient reaches head.neck.lonely"]


def transposed(forward):
    return lambda *given: forward(*given).T


def test_a_transposed_matrix_is_seen(model, monkeypatch):
    """There are not as many queries as gallery pictures, nor as many identities as pictures of one,
    nor as many pictures of one modality as of another."""
    matcher = type(model.matchers["look"])
    monkeypatch.setattr(matcher, "distance", transposed(matcher.distance))
    assert "distance gives torch.float32 [5, 4] for 4 x 5 pictures" in refusal(model)


def test_a_transposing_postprocessor_is_seen(monkeypatch):
    """Whatever the run file ranks with."""
    text = TINY + '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 2\nk2 = 1\n'
    plan = make_plan(parse_runfile(text, Path("tiny.toml"), []), Plugins([]), allow_missing=True)
    model = build_model(plan, 0)
    assert dry_run(plan, model) == []
    monkeypatch.setattr(Rerank, "__call__", transposed(Rerank.__call__))
    said = refusal(model)
    assert "post" in said and "returned torch.float32 [5, 4] for float32 [4, 5] distances" in said
