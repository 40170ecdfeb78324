"""One check of the conformance kit, and which other check explains that it fails. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from reidcore.errors import ReidError
from reidcore.support.author_code import with_place
from reidcore.testing.failures import ConformanceError, NotChecked

_NAMED = re.compile(r"\(([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\)")
"""A component in a message, as in "head 'cut' (example.stripes)"."""


@attrs.frozen
class Check:
    """One promise of one plugin or component. Calling it raises `ConformanceError` if it fails, and
    `NotChecked`, which pytest takes for a skipped test, if it cannot be judged.

    Args:
        name: Component and promise, such as "head spots.gem: state survives saving".
        function: Function without arguments that raises if the promise is broken.
        known: Reason why the check is known to fail; "" if it is not. A check that is known to fail
            raises if it passes, because then the list of known failures is wrong.
        first: Checks whose failure explains this one's. Where one of them fails, this one raises
            `NotChecked` in place of `ConformanceError`, so that one fault is told once.
        samples: Check of the sample of each component of the plugin, by the component's full name.
            A failure that names another component, whose sample fails, is explained by that.

    Example:
        >>> from reidcore.testing import Check
        >>> def fits():
        ...     raise ValueError("8 is not 9")
        >>> Check("head spots.gem: fits", fits)()
        Traceback (most recent call last):
        ...
        reidcore.testing.failures.ConformanceError: head spots.gem: fits: ValueError: 8 is not 9
    """

    name: str
    function: Callable[[], None]
    known: str = ""
    first: tuple[Check, ...] = attrs.field(default=(), repr=False, eq=False)
    samples: Mapping[str, Check] = attrs.field(factory=dict, repr=False, eq=False)
    _found: list[ConformanceError | None] = attrs.field(
        factory=list, init=False, repr=False, eq=False
    )

    def __call__(self) -> None:
        failure = self._failure()
        if failure is None and self.known:
            raise ConformanceError(
                f"{self.name}: it holds, though it is known to fail ({self.known}); take it off "
                "the list"
            )
        if failure is None or self.known:
            return
        if root := self._explanation():
            text = f"{self.name}: not judged, because this fails: {root.name}"
            raise NotChecked(text) from failure
        raise failure

    def _failure(self) -> ConformanceError | None:
        """Make the check, and return what it raises. Raises `NotChecked` if it cannot be made."""
        failure = None
        try:
            self.function()
        except NotChecked as error:
            raise NotChecked(f"{self.name}: {error}") from None
        except ConformanceError as error:
            failure = ConformanceError(f"{self.name}: {error}")
            failure.__context__, failure.__suppress_context__ = error, True
        except ReidError as error:
            failure = ConformanceError(f"{self.name}: {error}")
            failure.__cause__ = error
        except (Exception, SystemExit) as error:
            failure = ConformanceError(f"{self.name}: {with_place(error)}")
            failure.__cause__ = error
        self._found[:] = [failure]
        return failure

    def _explanation(self) -> Check | None:
        """Return the check whose failure explains that of this one; None if it is its own, or if
        the two explain each other."""
        path = [self.name]
        last = self
        while (other := last._explained_by()) is not None:
            if other.name in path:
                return None if other.name == self.name else other
            path.append(other.name)
            last = other
        return last if last is not self else None

    def _explained_by(self) -> Check | None:
        """Return the first check that fails and explains a failure of this one.

        A failure that names a component of this plugin is explained by that one's sample.
        """
        named = _NAMED.search(str(self._outcome()).removeprefix(f"{self.name}: "))
        check = self.samples.get(named[1]) if named else None
        for other in (*self.first, *([check] if check and check.name != self.name else [])):
            if other._outcome() is not None:
                return other
        return None

    def _outcome(self) -> ConformanceError | None:
        """Return how the check fails, which is found out once; None if it holds."""
        try:
            return self._found[0] if self._found else self._failure()
        except NotChecked:
            return None

    def __str__(self) -> str:
        return self.name
