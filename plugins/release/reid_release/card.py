"""The model card of a release: README.md, as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from huggingface_hub import EvalResult, ModelCardData

from reid_release.card_content import CardContent
from reidcore.tools import duration, in_order

TASK = "image-feature-extraction"


@attrs.frozen
class Released:
    """What the user says of a release.

    name: of the folder. repo: USER/NAME on Hugging Face, "" if it is not pushed. licence: its id,
    "" if not stated. about: Markdown. exports: names of the added files.
    """

    name: str
    repo: str
    licence: str
    about: str
    exports: Sequence[str]


def model_card(content: CardContent, released: Released) -> str:
    """Return the text of the card: YAML that Hugging Face reads, then Markdown for people."""
    sections = [
        f"---\n{_data(content, released).to_yaml()}\n---",
        f"# {content.record['name']}",
        released.about,
        _summary(content),
        *_use(content, released),
        *_scores(content),
        *_training(content),
        *_limits(content),
        *_licence(content, released),
    ]
    return "\n\n".join(one.strip() for one in sections if one) + "\n"


def _data(content: CardContent, released: Released) -> ModelCardData:
    name = content.record["name"]
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=test,
            dataset_name=f"{test}, ranking {ranking}, {stage}",
            metric_type=metric,
            metric_value=round(score.mean, 6),
        )
        for (test, ranking, stage), scores in _places(content)
        for metric, score in scores.items()
    ]
    return ModelCardData(
        library_name="reidcore",
        license=released.licence or None,
        pipeline_tag=TASK,
        tags=["re-identification", "image-retrieval", *_plugins(content)],
        model_name=name if results else None,
        eval_results=results or None,
    )


def _plugins(content: CardContent) -> list[str]:
    uses = (use.partition(".")[0] for _, use, _, _ in content.parts)
    return sorted({use for use in uses if use and use != "core"})


def _places(content: CardContent) -> list[tuple[tuple[str, str, str], Mapping[str, Any]]]:
    return list(content.results.scores.items()) if content.results is not None else []


def _summary(content: CardContent) -> str:
    height, width = content.resolved["data"]["image"]
    backbone = content.resolved["parts"]["backbone"]["use"]
    return (
        f"A network for object re-identification: it finds the same object in pictures of other "
        f"cameras. {content.parameters / 1e6:.2f} M parameters, backbone `{backbone}`, pictures of "
        f"{height}x{width} pixels (height x width). Trained with "
        f"reidcore {content.record['versions']['reidcore']}."
    )


def _use(content: CardContent, released: Released) -> Iterator[str]:
    place = f"hf://{released.repo}" if released.repo else released.name
    packages = ["'reidcore[hub]'" if released.repo else "reidcore"]
    packages += [one.partition(" ")[0] for one in content.distributions]
    yield "## Use"
    yield f"```\npip install {' '.join(packages)}\n```"
    yield (
        "```python\nimport reidcore\n\n"
        f'run = reidcore.load("{place}")\n'
        'gallery = run.templates("gallery")  # a folder of pictures, a list, or frames in memory\n'
        'for match in run.rank("new", gallery, top=5):\n'
        "    print(match.query, match.rank, match.gallery, match.distance)\n```"
    )
    yield f"or `reid rank {place} --query new --gallery gallery`, with these parts:"
    rows = ["| part | component | of | paper |", "| --- | --- | --- | --- |"]
    for role, use, owner, paper in content.parts:
        rows.append(f"| `{role}` | `{use}` | {owner or 'training only'} | {_cell(paper)} |")
    yield "\n".join(rows)
    if released.exports:
        yield "Exports: " + ", ".join(f"`exports/{name}`" for name in released.exports) + "."


def _scores(content: CardContent) -> Iterator[str]:
    yield "## Scores"
    places = _places(content)
    if not places:
        yield "The run had no test set."
        return
    metrics = in_order(name for _, scores in places for name in scores)
    rows = [
        f"| test set | ranking | stage | {' | '.join(metrics)} |",
        f"| --- | --- | --- |{' --- |' * len(metrics)}",
    ]
    for place, scores in places:
        cells = [_percent(scores[name]) if name in scores else "" for name in metrics]
        rows.append(f"| {' | '.join(map(_cell, (*place, *cells)))} |")
    yield "In percent; a deviation is that of several trials."
    yield "\n".join(rows)
    protocols = content.record.get("protocols", {})
    if protocols:
        lines = [
            f"* `{test}`: protocol `{one['use']}`{_settings(one)}"
            for test, one in protocols.items()
        ]
        yield "\n".join(lines)
    evaluation = content.resolved["eval"]
    yield (
        f"Average precision by `{evaluation['ap']}`, ties `{evaluation['ties']}`, views "
        f"{', '.join(f'`{view}`' for view in evaluation['views'])}; queries counted: "
        f"`{evaluation['queries']}`."
    )


def _training(content: CardContent) -> Iterator[str]:
    train, record = content.resolved["train"], content.record
    known = record.get("training", {})
    yield "## Training"
    sets = ", ".join(f"`{name}`" for name in _sets(content.resolved["data"]["train"])) or "none"
    text = f"Data: {sets}, {known.get('identities', 0)} identities"
    if cameras := known.get("cameras"):
        text += f" in {cameras} cameras"
    text += ". No picture of them is in this folder."
    if known.get("train_modalities"):
        text += f" Light: {', '.join(known['train_modalities'])}."
    yield text
    optim = content.resolved.get("optim")
    how = f"{train['epochs']} epochs"
    if optim:
        how += f", {optim['kind']}, learning rate {optim['lr']:g}"
    how += f", seed {train['seed']}, on {record.get('device', 'an unknown device')}"
    if content.results is not None and content.results.seconds:
        how += f", {duration(content.results.seconds)} of training"
    yield f"{how}. `run.toml` is the run file, `lock.json` has every setting and version."
    started = [
        f"`{role}` from `{table['weights']}`"
        for role, table in content.resolved.get("parts", {}).items()
        if isinstance(table.get("weights"), str) and table["weights"]
    ]
    if started:
        yield f"It started from other weights, whose licence holds too: {', '.join(started)}."


def _sets(entries: Any) -> Iterator[str]:
    for one in entries if isinstance(entries, list) else [entries]:
        if one:
            yield str(one.get("name") or one.get("read") or one.get("manifest"))


def _limits(content: CardContent) -> Iterator[str]:
    yield "## Intended use and limits"
    tests = ", ".join(f"`{name}`" for name in dict.fromkeys(p[0] for p, _ in _places(content)))
    yield (
        "For research on re-identification, and for finding the same object again in pictures that "
        "their owner may search in this way."
    )
    limits = [
        f"The scores hold for the test sets {tests} and cameras like theirs; elsewhere, with other "
        "cameras, light or objects, expect lower ones and measure them."
        if tests
        else "It was not tested: measure it on your own pictures before you rely on it.",
        "A distance is no proof of identity. Let a person decide where a wrong match does harm.",
        "Whether it works equally well for all groups of people was not examined.",
        "Pictures of persons are personal data in many countries; searching them needs a right to.",
    ]
    yield "\n".join(f"* {one}" for one in limits)


def _licence(content: CardContent, released: Released) -> Iterator[str]:
    yield "## Licence"
    if released.licence:
        yield f"`{released.licence}`, as far as the data and weights it was trained from allow."
    else:
        yield "No licence is stated: ask the author before you use it."


def _settings(protocol: Mapping[str, Any]) -> str:
    more = {key: value for key, value in protocol.items() if key != "use" and value is not None}
    return f" ({', '.join(f'{key} {value}' for key, value in more.items())})" if more else ""


def _percent(score: Any) -> str:
    if len(score.values) > 1:
        return f"{100 * score.mean:.1f} ± {100 * score.deviation:.1f}"
    return f"{100 * score.mean:.1f}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
