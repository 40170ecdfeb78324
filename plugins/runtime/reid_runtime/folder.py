"""An export's folder: its manifest, checked, and sessions of its graphs."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnxruntime

FORMAT = 1


class ExportError(ValueError):
    """An export that cannot be used, or a question that does not fit it; the text says why."""


class Export:
    """A folder that `reid export` made; `manifest` is its export.json."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        path = self.folder / "export.json"
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found, kind = self.manifest["format"], self.manifest["kind"]
        except FileNotFoundError:
            raise ExportError(f"{self.folder} holds no export: there is no export.json") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExportError(f"{path} is damaged: {error!r:.200}") from None
        if found != FORMAT:
            raise ExportError(
                f"{path} has format {found!r}, and this reid-runtime reads {FORMAT}; upgrade it"
            )
        if kind != "onnx":
            raise ExportError(f"{self.folder} holds graphs of {kind}; export with --format onnx")
        told, said = self.manifest.pop("sha256", None), json.dumps(self.manifest, sort_keys=True)
        if sha256(said.encode()).hexdigest() != told:
            raise ExportError(f"{path} was edited: its SHA-256 differs; export the run again")

    def session(self, name: str, threads: int) -> onnxruntime.InferenceSession:
        """Return a graph, ready to run on the CPU with so many threads, 0 for all cores."""
        said = self.manifest["graphs"][name]
        path = self.folder / said["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror}") from None
        if sha256(content).hexdigest() != said["sha256"]:
            raise ExportError(
                f"{path} is not the file that export.json lists: its SHA-256 differs, so it was "
                "edited or damaged; export the run again"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own kinds, one for each fault
            raise ExportError(
                f"onnxruntime {onnxruntime.__version__} cannot read {path}, of opset "
                f"{said['opset']}: {str(error).splitlines()[0]:.300}"
            ) from None
