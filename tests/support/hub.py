"""A hub on this machine that answers as the Hugging Face hub does, for a process whose HF_ENDPOINT is its address."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "c" * 40


class _Hub(ThreadingHTTPServer):
    daemon_threads = True
    repositories: Mapping[str, Path]


class _Handler(BaseHTTPRequestHandler):
    server: _Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def _answer(self, whole: bool) -> None:
        body = self._body(urlsplit(self.path).path.split("/")[1:])
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "RevisionNotFound")
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if whole and body:
            self.wfile.write(body)

    def _body(self, parts: list[str]) -> bytes | None:
        is_api = parts[:2] == ["api", "models"]
        organisation, name, verb, revision, *file = parts[2:] if is_api else parts
        folder = self.server.repositories.get(f"{organisation}/{name}")
        if folder is None or revision not in ("main", "v1", COMMIT):
            return None
        if is_api and verb == "revision":
            return json.dumps({"id": f"{organisation}/{name}", "sha": COMMIT}).encode()
        if is_api:
            files = [path for path in sorted(folder.iterdir()) if path.is_file()]
            listing = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40} for path in files
            ]
            return json.dumps(listing).encode()
        path = folder / "/".join(file)
        return path.read_bytes() if path.is_file() else None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_of(repositories: Mapping[str, Path]) -> Iterator[str]:
    """Serve folders as repositories, each with one commit, which is `main` and `v1`; yield the address."""
    with _Hub(("127.0.0.1", 0), _Handler) as hub:
        hub.repositories = repositories
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_address[1]}"
        hub.shutdown()
