"""A small server that speaks what huggingface_hub says to the Hugging Face hub, on the local machine.

It stands in for the hub in tests: real sockets, real HTTP, commits with a hash each. Files are stored as plain git blobs
(neither LFS nor Xet), as the real hub does with small ones. `requests` has every request that arrived, with its token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants


class Received(NamedTuple):
    method: str
    path: str
    token: str | None


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        known = [
            sorted((name, hashlib.sha1(one).hexdigest()) for name, one in files.items()),
            len(self.commits),
            branch,
        ]
        oid = hashlib.sha1(json.dumps(known).encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        oid = self.branches.get(revision, revision)
        return (oid, self.commits[oid]) if oid in self.commits else None


class Refused(Exception):
    def __init__(self, status: int, code: str = "", **content: Any) -> None:
        super().__init__(code)
        self.status, self.code, self.content = status, code, content


class HubServer:
    """``with HubServer() as hub``: serves on ``hub.url`` until the end of the block.

    Args:
        tokens: those that may write and read private repositories.
        files_at: the URL of another server to which downloads are sent on, as the real hub does with large files.
    """

    def __init__(self, *, tokens: tuple[str, ...] = ("hf_secret",), files_at: str | None = None) -> None:
        self.tokens, self.files_at = tokens, files_at
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Received] = []
        self.sizes: dict[str, int] = {}
        """Sizes that are stated in place of the true ones."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def downloads(self) -> list[str]:
        """The names of the files that were sent."""
        return [one.path.rpartition("/")[2] for one in self.requests if one.method == "GET" and "/resolve/" in one.path]

    # ------------------------------------------------------------------ what is asked

    def repository(self, name: str, token: str | None) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and token not in self.tokens):
            raise Refused(401 if token is None else 404, "RepoNotFound", error="Repository not found")
        return found

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(one) for one in path.strip("/").split("/")]
        if method == "POST" and token not in self.tokens and parts[1:2] != ["validate-yaml"]:
            raise Refused(401 if token is None else 403, error="Invalid credentials")
        if parts[:2] == ["api", "validate-yaml"]:
            content = json.loads(body)["content"]
            if not content.startswith("---\n"):
                return _json({"warnings": [{"message": "empty or missing yaml metadata"}], "errors": []})
            try:
                matter = yaml.safe_load(content.split("\n---\n")[0].removeprefix("---\n"))
                assert isinstance(matter, dict)
            except (yaml.YAMLError, AssertionError) as error:
                raise Refused(400, errors=[{"message": str(error)}], warnings=[]) from None
            return _json({"warnings": [], "errors": []})
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            return self._api(self.repository(name, token), name, parts[4:], body)
        name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        return self._file(self.repository(name, token), path, revision, file)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        name = f"{wanted['organization']}/{wanted['name']}"
        content = {"url": f"{self.url}/{name}", "name": name}
        if name in self.repositories:
            raise Refused(409, **content, error="You already created this model repo")
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.repositories[name] = Repository(private)
        self.repositories[name].commit("main", {".gitattributes": b""})
        return _json(content)

    def _api(
        self, repository: Repository, name: str, parts: list[str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        action, revision = [*parts, "", ""][:2]
        if action == "branch":
            if revision in repository.branches:
                raise Refused(409, error="Reference already exists")
            repository.branches[revision] = repository.branches["main"]
            return _json({})
        found = repository.at(revision or "main")
        if found is None:
            raise Refused(404, "RevisionNotFound", error="Invalid rev id")
        oid, files = found
        if action in ("", "revision"):
            siblings = [
                {"rfilename": path, "size": self.sizes.get(path, len(one)), "blobId": hashlib.sha1(one).hexdigest()}
                for path, one in files.items()
            ]
            return _json({"id": name, "modelId": name, "sha": oid, "private": repository.private, "siblings": siblings})
        if action == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            return _json({"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in paths]})
        assert action == "commit", parts
        changed = dict(files)
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                changed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del changed[line["value"]["path"]]
        new = repository.commit(revision, changed)
        return _json({"success": True, "commitOid": new, "commitUrl": f"{self.url}/{name}/commit/{new}"})

    def _file(self, repository: Repository, path: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        found = repository.at(revision)
        if found is None:
            raise Refused(404, "RevisionNotFound", error="Invalid rev id")
        oid, files = found
        if file not in files:
            raise Refused(404, "EntryNotFound", error="Entry not found")
        headers = {"ETag": f'"{hashlib.sha1(files[file]).hexdigest()}"', "X-Repo-Commit": oid}
        if self.files_at is not None:
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(files[file]))}
            return 302, {**headers, **linked, "Location": self.files_at + path}, b""
        return 200, headers, files[file]


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            given = self.headers.get("Authorization")
            token = given.removeprefix("Bearer ") if given else None
            path = urlsplit(self.path).path
            hub.requests.append(Received(self.command, path, token))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            method = "GET" if self.command == "HEAD" else self.command
            try:
                status, headers, content = hub.answer(method, path, body, token)
            except Refused as error:
                status, headers, content = (
                    error.status,
                    {"X-Error-Code": error.code},
                    json.dumps(error.content).encode(),
                )
                headers["X-Error-Message"] = str(error.content.get("error", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = respond

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def pointed_at(monkeypatch: pytest.MonkeyPatch, server: HubServer, cache: Path) -> None:
    """Have huggingface_hub speak to the server, without a token of the user's, and store downloads in ``cache``."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")
