"""Has uploaded pictures decoded by other processes, within limits of memory and time."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import attrs

from reid_gallery.serve.decoder import HEAD
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.settings import Settings

START = 60.0
"""Seconds for which a process may begin."""
BUFFER = 1 << 22
"""Bytes of a picture that are taken from its process at once."""
ENDINGS = {"BMP": ".bmp", "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


@attrs.frozen(eq=False)
class Decoded:
    """An upload: its content, its ending, and its picture, of Pillow's, cut to its box."""

    content: bytes
    ending: str
    picture: Any


class Decoders:
    """Processes that decode; one that dies or takes too long is replaced.

    running: those that run.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._free: asyncio.Queue[Process | None] = asyncio.Queue()
        for _ in range(settings.decoders):
            self._free.put_nowait(None)
        self.running: set[Process] = set()

    async def decode(self, content: bytes, number: int, box: list[int] | None = None) -> Decoded:
        """Return a picture. number: of the upload in its request, for messages. Raises Problem."""
        child = await self._free.get()
        try:
            if child is None or child.returncode is not None:
                child = await self._started()
            asked = {"pixels": self._settings.pixels, "box": box}
            talk = self._ask(child, asked, content)
            said, pixels = await asyncio.wait_for(talk, self._settings.decode_seconds)
        except TimeoutError:
            self._end(child)
            raise Problem(415, f"picture {number} takes too long to decode") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            self._end(child)
            raise Problem(415, f"picture {number} cannot be decoded") from None
        except BaseException:  # a client that hangs up leaves half a message
            self._end(child)
            raise
        finally:
            alive = child is not None and child in self.running
            self._free.put_nowait(child if alive else None)
        if "error" in said:
            raise Problem(413 if said.get("large") else 415, f"picture {number} {said['error']}")
        from PIL import Image

        picture = Image.frombytes("RGB", tuple(said["size"]), pixels)
        return Decoded(content, ENDINGS[said["format"]], picture)

    async def _start(self) -> Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "reid_gallery.serve.decoder",
            str(self._settings.decode_memory),
            stdin=PIPE,
            stdout=PIPE,
            limit=BUFFER,
        )
        self.running.add(child)
        return child

    async def _started(self) -> Process:
        """Begin a process. How long that takes, and whether it can, is no picture's fault. Raises
        Problem."""
        child = await self._start()
        try:
            await asyncio.wait_for(self._told(child), START)
        except BaseException as error:
            self._end(child)
            if isinstance(error, TimeoutError | asyncio.IncompleteReadError):
                wait = {"Retry-After": "5"}
                raise Problem(503, "pictures cannot be decoded at the moment", wait) from None
            raise
        return child

    async def _ask(
        self, child: Process, asked: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        assert child.stdin is not None
        text = json.dumps(asked).encode()
        child.stdin.writelines((HEAD.pack(len(text), len(content)), text, content))
        await child.stdin.drain()
        return await self._told(child)

    @staticmethod
    async def _told(child: Process) -> tuple[dict[str, Any], bytes]:
        """The next message of a process."""
        assert child.stdout is not None
        sizes = HEAD.unpack(await child.stdout.readexactly(HEAD.size))
        said = json.loads(await child.stdout.readexactly(sizes[0]))
        return said, await child.stdout.readexactly(sizes[1])

    def _end(self, child: Process | None) -> None:
        if child is None:
            return
        self.running.discard(child)
        if child.returncode is None:
            child.kill()

    async def close(self) -> None:
        """End all processes."""
        for child in list(self.running):
            self._end(child)
            await child.communicate()  # until its pipes are closed
