"""The numbers that training logs in one epoch, and its row of means.csv."""

from __future__ import annotations

import math
import time

from torch import Tensor

from reidcore.errors import ReidError


class EpochLog:
    """The numbers logged in one epoch, the pictures read in it, and when it began."""

    def __init__(self) -> None:
        self.pictures = 0
        self._reported = 0
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._began = time.monotonic()

    def add(self, name: str, number: Tensor | float) -> None:
        """Add a number to the mean of this name."""
        value = number.detach() if isinstance(number, Tensor) else number
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the mean of every name; on a GPU this waits for it."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    def new_pictures(self) -> int:
        """Return the number of pictures read since the last call."""
        new = self.pictures - self._reported
        self._reported = self.pictures
        return new

    def row(self, epoch: int, rate: float) -> dict[str, float]:
        """Return the epoch's row of means.csv, now that it has ended.

        epoch: its number, from 1. rate: the learning rate. Raises ReidError if a mean is not
        finite.
        """
        means = self.means()  # waits for the GPU, so it comes before the clock is read
        seconds = time.monotonic() - self._began
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            raise diverged(", ".join(wrong), means[wrong[0]], epoch)
        return {
            "epoch": epoch,
            **means,
            "lr": rate,
            "seconds": round(seconds, 3),
            "pictures_per_second": round(self.pictures / max(seconds, 1e-9), 1),
        }


def diverged(what: str, value: float, epoch: int) -> ReidError:
    """Return the error for a number that is no longer finite in an epoch, counted from 1."""
    return ReidError(f"{what} became {value} in epoch {epoch}; {_remedies(epoch)}")


def not_finite(name: str, found: str, epoch: int) -> ReidError:
    """Return the error for weights, or an optimizer's state, that are not finite after an epoch,
    counted from 1, 0 before all. found: how many of them."""
    when = f"after epoch {epoch}" if epoch else "before the first epoch"
    return ReidError(
        f"{name} is not finite {when}: {found}; this state is not saved; {_remedies(epoch)}"
    )


def _remedies(epoch: int) -> str:
    if epoch < 2:  # there is no means.csv yet
        return "lower optim.lr or set optim.clip_norm"
    return "lower optim.lr, set optim.clip_norm, or look at means.csv"
