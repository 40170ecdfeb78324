"""The report's figures, by Matplotlib: SVG for the page, PNG for papers. Torch-free."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from reid_report.folder import Line
from reid_report.selection import Change
from reid_report.stage import Histogram, Stage

DARK = "#e4e4ea"
"""Ink for a dark page."""
LIGHT = "#24242c"
"""Ink for a light page."""
COLOURS = ("#2f7ed8", "#e0782f", "#2a9d62", "#c2479a", "#8a6fd1", "#b59a1d", "#3aa6b0", "#d1495b")
"""They stand out from white and from near black, and from each other without red and green."""
MATCH = COLOURS[0]
WRONG = COLOURS[1]
DASHES = ("-", "--", ":", "-.")
DPI = 300
"""Of the PNGs."""
_POINTS = 1500
"""Points from which a scatter plot is drawn as pixels inside its SVG."""


@attrs.frozen(eq=False)
class Plot:
    """A figure that can be drawn in any ink. name: for files. alt: what it shows, in words with
    its main numbers. inches: width and height."""

    name: str
    alt: str
    inches: tuple[float, float]
    draw: Callable[[Figure], None]

    def svg(self, ink: str) -> bytes:
        """On nothing, so that the page's colour is its paper."""
        with rc_context(_style(ink, self.name)):
            figure = Figure(figsize=self.inches, layout="constrained")
            FigureCanvasSVG(figure)
            self.draw(figure)
            out = io.BytesIO()
            # Without these the file would say when it was made.
            empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(out, format="svg", transparent=True, metadata=empty)
            return out.getvalue()

    def png(self) -> bytes:
        """Black on white."""
        with rc_context(_style("#000000", self.name)):
            figure = Figure(figsize=self.inches, layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure)
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
            return out.getvalue()


def _style(ink: str, name: str) -> Any:
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(colours, ink),
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.5,
        "figure.dpi": 100,
        "axes.grid": True,
        # Text stays text, and the same figure is the same file.
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "grid.color": ink,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        # Names of runs and parts are text, whatever dollars and backslashes are in them.
        "text.parse_math": False,
    }


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line, no two alike among the first 32."""
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes}


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def cmc(name: str, title: str, curves: Mapping[str, Sequence[float]]) -> Plot:
    """CMC curves by label."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, shares) in enumerate(curves.items()):
            ranks = range(1, len(shares) + 1)
            axes.plot(ranks, 100 * np.asarray(shares), label=label, **line_style(number))
        axes.set_title(title, loc="left")
        axes.set_xlabel("rank")
        axes.set_ylabel("queries with a match up to it, %")
        axes.set_xlim(1, max(2, *map(len, curves.values())))
        axes.set_ylim(0, 101)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        figure.legend(loc="outside right center")

    words = [
        f"{label}: "
        + ", ".join(f"rank-{k} {percent(shares[k - 1])}" for k in (1, 5, 10) if k <= len(shares))
        for label, shares in curves.items()
    ]
    return Plot(name, "CMC curves. " + "; ".join(words), (4.8 + legend_width(curves), 3), draw)


def by_epoch(name: str, panel: str, curves: Mapping[str, Sequence[Line]]) -> Plot:
    """Curves over epochs: {label: one line for each repeat}."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, lines) in enumerate(curves.items()):
            for repeat, (epochs, values) in enumerate(lines):
                axes.plot(
                    epochs,
                    values,
                    marker="o" if len(epochs) < 20 else "",
                    markersize=3,
                    label=label if repeat == 0 else None,
                    alpha=1 if len(lines) == 1 else 0.6,
                    **line_style(number),
                )
        axes.set_title(panel, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        if len(curves) > 1:
            figure.legend(loc="outside right center")

    ends = [
        f"{label} {values[0]:.4g} to {values[-1]:.4g}"
        for label, ((_, values), *_) in curves.items()
    ]
    alt = f"{panel} by epoch, from the first to the last: {', '.join(ends)}"
    return Plot(name, alt, (3.4 + (legend_width(curves) if len(curves) > 1 else 0), 2.3), draw)


def legend_width(labels: Iterable[str]) -> float:
    """Inches."""
    return 0.6 + 0.066 * max(map(len, labels))


def distances(name: str, label: str, stage: Stage) -> Plot:
    """Histograms of matches and strangers, each of area 1, with the thresholds."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        found = stage.histogram
        for side, counts, colour in (
            ("matches", found.match, MATCH),
            ("strangers", found.wrong, WRONG),
        ):
            density = counts / max(1, counts.sum()) / found.width
            axes.stairs(density, found.edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(density, found.edges, color=colour, label=side, linewidth=1.1)
        for number, (rate, (limit, share)) in enumerate(stage.accepts.items()):
            if np.isfinite(limit):
                said = f"TAR {percent(share)} at FAR {rate:g}"
                dashes = DASHES[(number + 1) % len(DASHES)]
                axes.axvline(limit, color=COLOURS[4], linewidth=1.1, linestyle=dashes, label=said)
        axes.set_title(f"distances, {label}", loc="left")
        axes.set_xlabel("distance")
        axes.set_ylabel("density of pairs")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        figure.legend(loc="outside lower center", ncols=2)

    points = [
        f"TAR {percent(share)} at FAR {rate:g} (distance below {limit:.4g})"
        for rate, (limit, share) in stage.accepts.items()
    ]
    found = stage.histogram
    means = [
        f"matches mean {_mean(found, found.match):.4g}",
        f"strangers mean {_mean(found, found.wrong):.4g}",
    ]
    alt = f"Histograms of distances, {label}: {', '.join([*means, *points])}"
    return Plot(name, alt, (3.8, 3.2), draw)


def _mean(histogram: Histogram, counts: np.ndarray) -> float:
    middle = histogram.edges[:-1] + histogram.width / 2
    return float((middle * counts).sum() / max(1, counts.sum()))


def cameras(name: str, pairs: Mapping[tuple[str, str], tuple[float, int]]) -> Plot:
    """mAP of each camera's queries in the pictures of each camera."""
    rows = list(dict.fromkeys(query for query, _ in pairs))
    columns = sorted(dict.fromkeys(gallery for _, gallery in pairs))
    values = np.full((len(rows), len(columns)), np.nan)
    for (query, gallery), (share, _) in pairs.items():
        values[rows.index(query), columns.index(gallery)] = 100 * share

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.grid(False)
        axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
        for row, column in np.argwhere(~np.isnan(values)):
            value = values[row, column]
            ink = "#ffffff" if value < 60 else "#101010"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(columns)), [_short(one) for one in columns])
        axes.set_yticks(range(len(rows)), [_short(one) for one in rows])
        axes.set_title("mAP by camera pair, %", loc="left")
        axes.set_xlabel("gallery camera")
        axes.set_ylabel("query camera")

    words = [
        f"{query} in {gallery}: {percent(share)} of {count} queries"
        for (query, gallery), (share, count) in pairs.items()
    ]
    inches = 1.6 + 0.62 * len(columns), 1.1 + 0.42 * len(rows)
    return Plot(name, "mAP by camera pair. " + "; ".join(words), inches, draw)


def _short(text: str) -> str:
    text = text or "unknown"
    return text if len(text) <= 14 else f"{text[:13]}…"


def ranks(name: str, before: str, after: str, found: Change) -> Plot:
    """Every query's first match before and after."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        most = 1.25 * max(2, int(found.before.max(initial=1)), int(found.after.max(initial=1)))
        axes.plot([0.8, most], [0.8, most], color=COLOURS[4], linewidth=0.8)
        rose, fell = found.after < found.before, found.after > found.before
        for label, where, colour in (
            ("gained", rose, MATCH),
            ("lost", fell, WRONG),
            ("same", ~rose & ~fell, "#888890"),
        ):
            axes.scatter(
                found.before[where],
                found.after[where],
                s=14,
                alpha=0.6,
                color=colour,
                linewidths=0,
                label=f"{label}: {where.sum()}",
                rasterized=len(found.before) > _POINTS,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlim(0.8, most)
        axes.set_ylim(0.8, most)
        axes.set_xlabel(f"rank of the first match: {before}")
        axes.set_ylabel(after)
        figure.legend(loc="outside right center")

    alt = (
        f"Ranks of first matches, {before} against {after}: of {len(found.place)} queries "
        f"{len(found.gained)} gained, {len(found.lost)} lost, {found.same} kept their rank."
    )
    return Plot(name, alt, (4.6, 3.2), draw)
