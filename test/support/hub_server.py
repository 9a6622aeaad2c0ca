"""A small Hugging Face hub on this machine: the part of its HTTP interface that downloads use, over real sockets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_test"


@dataclass
class Repo:
    """One repository: the files of a folder, at one commit."""

    folder: Path
    licence: str | None = "apache-2.0"
    gated: bool = False
    large: tuple[str, ...] = (".safetensors", ".pth", ".pt")
    """Endings of the files that LFS holds."""

    def files(self) -> dict[str, bytes]:
        """Contents by path."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@dataclass
class Hub:
    """What the server has, what it was asked for, and how it misbehaves."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths of all files that were asked for, with the Range header."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Path → bytes after which the connection is cut, once."""
    stall_after: dict[str, int] = field(default_factory=dict)
    """Path → bytes after which nothing more comes until `release` is set, once."""
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    altered: set[str] = field(default_factory=set)
    """Paths whose content arrives with one bit flipped."""
    endpoint: str = ""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        """What the hub's client asks first: size, hash and commit of a file."""
        self.do_GET()

    def do_GET(self) -> None:
        """`/api/models/OWNER/NAME/...` and `/OWNER/NAME/resolve/COMMIT/PATH`."""
        url = urlsplit(self.path)
        words = [unquote(word) for word in url.path.strip("/").split("/")]
        is_api = words[:2] == ["api", "models"]
        words = words[2:] if is_api else words
        repo = self.hub.repos.get("/".join(words[:2]))
        if repo is None:
            self._error(401, "RepoNotFound", "Repository not found")
        elif is_api:
            self._answer(repo, words[2:], parse_qs(url.query))
        elif words[2] == "resolve":
            self._send_file(repo, "/".join(words[4:]))

    def _answer(self, repo: Repo, words: list[str], query: dict[str, list[str]]) -> None:
        kind = words[0] if words else "revision"
        if kind in ("revision", "tree") and words[1:] and words[1] not in ("main", COMMIT):
            self._error(404, "RevisionNotFound", "Revision not found")
        elif kind == "auth-check":
            if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._error(403, "GatedRepo", "Access to this model is restricted")
            else:
                self._json({"status": "ok"})
        elif kind == "tree":
            self._json([_listing(path, content, repo) for path, content in repo.files().items()])
        else:
            card = {"license": repo.licence} if repo.licence else {}
            files = [{"rfilename": path} for path in repo.files()]
            gated = "auto" if repo.gated else False
            self._json({"id": "a/b", "sha": COMMIT, "gated": gated, "cardData": card, "siblings": files})

    def _send_file(self, repo: Repo, path: str) -> None:
        content = repo.files().get(path)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(403, "GatedRepo", "Access to this model is restricted")
            return
        if self.command == "HEAD":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            return
        hub = self.hub
        asked = self.headers.get("Range")
        hub.requests.append((path, asked))
        if path in hub.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if path in hub.cut_after:
            self.wfile.write(content[start : hub.cut_after.pop(path)])
            self.close_connection = True
            return
        if path in hub.stall_after:
            end = hub.stall_after.pop(path)
            self.wfile.write(content[start:end])
            self.wfile.flush()
            hub.stalled.set()
            hub.release.wait()
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _listing(path: str, content: bytes, repo: Repo) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
    if path.endswith(repo.large):
        digest = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": len(pointer)}
        content = pointer
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return entry
