"""Disks that take nothing more, and folders that this process may not use."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DAC = 1 << 1 | 1 << 2
"""The capabilities by which root reads and writes whatever permissions say."""


@contextmanager
def files_of(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # else it is kept cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiled


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Permissions hold for this thread, too, where root runs the tests."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    found = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice

    def apply(effective: int) -> None:
        found[0] = effective
        assert libc.capset(header, found) == 0, os.strerror(ctypes.get_errno())

    assert libc.capget(header, found) == 0
    before = found[0]
    apply(before & ~DAC)
    try:
        yield
    finally:
        apply(before)
