"""Shows the progress of long jobs: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

BETWEEN = 30.0
"""Seconds between two lines about a long job in a log."""
LEFT, BAR = 12, 8
"""Columns of a terminal for the epoch, at least, and for the bar behind it."""


class Reporter(Protocol):
    """Where training and evaluation tell the user what they do."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def working(self, text: str) -> None:
        """Show how far a long job is; the next such line takes its place."""

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        """An epoch begins. Epochs count from 0; `first` is the first one since the start or the
        last resume."""

    def step(self, pictures: int, terms: Mapping[str, float] | None) -> None:
        """A step of the optimizer is done, with so many pictures; `terms` are the epoch's means so
        far, or None where they are not at hand."""

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        """An epoch has ended, with this row of means.csv."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Silent:
    """A reporter that shows nothing."""

    def say(self, text: str) -> None: ...

    def working(self, text: str) -> None: ...

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None: ...

    def step(self, pictures: int, terms: Mapping[str, float] | None) -> None: ...

    def epoch_ended(self, means: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def shown_means(means: Mapping[str, float]) -> list[str]:
    """Return the means for a line of progress, such as `loss 1.234` and `id 1.100`."""
    hidden = ("epoch", "seconds", "lr", "pictures_per_second")
    return [f"{key} {value:.3f}" for key, value in means.items() if key not in hidden]


def fitting(words: Sequence[str], width: int) -> str:
    """Return the first words as one line of at most this width, with dots where some are left
    out."""
    line = "  ".join(words)
    shown = len(words)
    while len(line) > width and shown:
        shown -= 1
        line = "  ".join([*words[:shown], "..."])
    return line[: max(0, width)]


def duration(seconds: float) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Plain:
    """A reporter for logs and pipes, which prints lines."""

    def __init__(self, stream: Any = None):
        self._stream = stream or sys.stdout
        self._epochs = self._epoch = self._first = 0
        self._started = self._told = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def working(self, text: str) -> None:
        if time.monotonic() - self._told >= BETWEEN:
            self._told = time.monotonic()
            self.say(text)

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        self._epoch, self._epochs, self._first = epoch, epochs, first
        if epoch == first:
            self._started = time.monotonic()

    def step(self, pictures: int, terms: Mapping[str, float] | None) -> None: ...

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        done = self._epoch + 1
        spent = time.monotonic() - self._started
        left = spent / (done - self._first) * (self._epochs - done)
        rate = means.get("pictures_per_second", 0.0)
        pace = [f"{rate:.0f} pictures/s", f"{duration(left)} left"]
        self._say_epoch(f"epoch {done}/{self._epochs}", pace, shown_means(means))

    def _say_epoch(self, epoch: str, pace: Sequence[str], terms: Sequence[str]) -> None:
        self.say("  ".join([epoch, *terms, *pace]))

    def close(self) -> None: ...


class Live(Plain):
    """A reporter for terminals: a progress line by rich, above which finished epochs scroll. Rate
    and time left come first, then as many means as fit into a line; means.csv has all of them."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        # In a narrow terminal the end of the text is cut, never the epoch.
        epoch = TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=LEFT))
        text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
        self._progress = Progress(
            epoch, BarColumn(bar_width=BAR), text, console=Console(file=self._stream)
        )
        self._task = self._progress.add_task("", total=None, text="", visible=False)
        self._progress.start()
        self._seen = self._per_epoch = 0
        self._since = time.monotonic()

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def working(self, text: str) -> None:
        self._progress.update(self._task, description="scoring", text=text, visible=True)

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        super().epoch_started(epoch, epochs, first)
        self._seen, self._since = 0, time.monotonic()
        self._progress.update(
            self._task,
            description=f"epoch {epoch + 1}/{epochs}",
            total=epochs,
            completed=epoch,
            text="",
            visible=True,
        )

    def step(self, pictures: int, terms: Mapping[str, float] | None) -> None:
        self._seen += pictures
        rate = self._seen / max(1e-6, time.monotonic() - self._since)
        words = [f"{rate:.0f} pictures/s"]
        if self._per_epoch:
            done_here = min(1.0, self._seen / self._per_epoch)
            left = (self._epochs - self._epoch - done_here) * self._per_epoch / rate
            words.append(f"{duration(left)} left")
            self._progress.update(self._task, completed=self._epoch + done_here)
        words += shown_means(terms or {})
        before = max(LEFT, len(f"epoch {self._epoch + 1}/{self._epochs}")) + BAR + 2
        text = fitting(words, self._progress.console.width - before)
        self._progress.update(self._task, text=text)

    def _say_epoch(self, epoch: str, pace: Sequence[str], terms: Sequence[str]) -> None:
        self.say(fitting([epoch, *pace, *terms], self._progress.console.width))

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        super().epoch_ended(means)
        self._per_epoch = self._seen

    def close(self) -> None:
        self._progress.update(self._task, visible=False)
        self._progress.stop()


def reporter(stream: TextIO | None = None) -> Plain:
    """Return a reporter that writes into a stream, standard output if not given: live in a
    terminal, plain lines elsewhere."""
    stream = stream or sys.stdout
    return Live(stream) if stream.isatty() else Plain(stream)
