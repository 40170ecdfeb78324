"""The figures of an open set: identification at rates of false alarms, and probabilities beside
the shares of matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from reid_report.plots import Plot, legend_width, line_style, percent

Curves = Mapping[str, Mapping[str, Sequence[float]]]
"""{label: the lists that scores.json has of an open set}."""


def open_set_plots(key: str, curves: Curves, title: str = "") -> list[Plot]:
    """Return the figures of what there is. key: beginning of the names of files."""
    plots = []
    rates = {label: one for label, one in curves.items() if one.get("far")}
    if rates:
        plots.append(_identification(f"{key}-dir", rates, title))
    bins = {label: one for label, one in curves.items() if one.get("weight")}
    if bins:
        plots.append(_reliability(f"{key}-reliability", bins, title))
    return plots


def _identification(name: str, curves: Curves, title: str) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, one) in enumerate(curves.items()):
            shares = [100 * share for share in one["dir"]]
            axes.plot(one["far"], shares, label=label, **line_style(number))
        axes.set_title(title, loc="left")
        axes.set_xscale("log")
        axes.set_xlabel("false alarms, share of queries without a match")
        axes.set_ylabel("queries with a match identified, %")
        axes.set_ylim(0, 101)
        figure.legend(loc="outside right center")

    words = []
    for label, one in curves.items():
        share = dict(zip(one["far"], one["dir"], strict=True))
        said = ", ".join(f"{percent(share[far])} at {far:g}" for far in (0.01, 0.1) if far in share)
        words.append(f"{label}: {said}")
    alt = "Detection and identification rate at false alarm rates. " + "; ".join(words)
    return Plot(name, alt, (4.8 + legend_width(curves), 3), draw)


def _reliability(name: str, curves: Curves, title: str) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        for number, (label, one) in enumerate(curves.items()):
            filled = _filled(one)
            axes.plot(*filled, marker="o", markersize=3, label=label, **line_style(number))
        axes.set_title(title, loc="left")
        axes.set_xlabel("probability of one identity")
        axes.set_ylabel("share of matches")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.legend(loc="outside right center")

    words = [f"{label}: calibration error {percent(_error(one))}" for label, one in curves.items()]
    alt = "Share of matches beside the probability, the diagonal is right. " + "; ".join(words)
    return Plot(name, alt, (4.8 + legend_width(curves), 3), draw)


def _filled(one: Mapping[str, Sequence[float]]) -> tuple[list[float], list[float]]:
    """The probabilities and shares of the bins that hold pairs."""
    bins = zip(one["confidence"], one["observed"], one["weight"], strict=True)
    filled = [(probability, share) for probability, share, weight in bins if weight]
    return [probability for probability, _ in filled], [share for _, share in filled]


def _error(one: Mapping[str, Sequence[float]]) -> float:
    bins = zip(one["confidence"], one["observed"], one["weight"], strict=True)
    return sum(weight * abs(probability - share) for probability, share, weight in bins)
