"""Which kernels can be cut from which maps, by arithmetic alone."""

from __future__ import annotations


def fitting_channels(channels: int, places: int) -> tuple[int, int]:
    """The next numbers of channels below (0 if there is none) and above whose square divides among
    `places` locations: multiples of the least number whose square does."""
    least = next(n for n in range(1, places + 1) if n * n % places == 0)
    below = channels // least * least
    return below, below + least


def fitting_grid(channels: int, height: int, width: int) -> tuple[int, int]:
    """The most rows and columns, at most `height` and `width`, among which the square of `channels`
    divides."""
    grids = (
        (rows, columns)
        for rows in range(1, height + 1)
        for columns in range(1, width + 1)
        if channels**2 % (rows * columns) == 0
    )
    return max(grids, key=lambda grid: (grid[0] * grid[1], grid[0]))
