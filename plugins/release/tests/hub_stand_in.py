"""A local server that speaks as much of Hugging Face's HTTP interface as pushing a folder and
fetching it needs. Files are kept in memory; there are neither branches nor large-file storage."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"


class Hub:
    """The state of the server. models: {USER/NAME: {path: content}}. private: those that are."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.fetched: list[str] = []

    def commit(self, repo: str) -> str:
        """The number of the commit that a model is at."""
        parts = [part for item in sorted(self.models[repo].items()) for part in (item[0], item[1])]
        text = b"\0".join(one if isinstance(one, bytes) else one.encode() for one in parts)
        return hashlib.sha1(text).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
            return
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.models.setdefault(repo, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(repo)
            self._answer({"url": f"{self._own()}/{repo}", "name": repo, "id": repo})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in files
            ]
            self._answer({"files": modes})
        elif "/commit/" in path:
            repo = "/".join(path.split("/")[3:5])
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.hub.models[repo][entry["value"]["path"]] = content
            commit = self.hub.commit(repo)
            url = f"{self._own()}/{repo}/commit/{commit}"
            self._answer({"success": True, "commitOid": commit, "commitUrl": url})
        elif path == "/api/validate-yaml":
            self._answer({"warnings": [], "errors": []})
        else:
            self._answer({"error": f"no {path}"}, 404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        steps = path.strip("/").split("/")
        api = steps[:2] == ["api", "models"]
        repo = "/".join(steps[2:4] if api else steps[:2])
        hidden = repo in self.hub.private and TOKEN not in self.headers.get("Authorization", "")
        if repo not in self.hub.models or hidden:
            self._answer({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
            return
        commit, files = self.hub.commit(repo), self.hub.models[repo]
        if api and steps[4:5] == ["tree"]:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in files.items()
            ]
            self._answer(tree)
        elif api and (len(steps) == 4 or steps[5:] in (["main"], [commit])):
            self._answer(
                {"id": repo, "sha": commit, "siblings": [{"rfilename": one} for one in files]}
            )
        elif api:
            self._answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        elif steps[2] == "resolve" and (name := "/".join(steps[4:])) in files:
            if self.command == "GET":
                self.hub.fetched.append(name)
            self._answer(files[name], ETag=f'"{_oid(files[name])}"', X_Repo_Commit=commit)
        else:
            self._answer({"error": f"no {path}"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def _own(self) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host!s}:{port}"


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def stand_in() -> Iterator[tuple[Hub, str]]:
    """Runs the server; gives its state and its address."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
