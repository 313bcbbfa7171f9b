"""A server on this machine that answers downloads as the Hugging Face Hub does, and can fail like it.

One repository, ``someone/model``: ``HEAD`` and ``GET /OWNER/NAME/resolve/REVISION/FILE``.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = "someone/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


class FakeHub:
    """The server's state.

    Attributes:
        folder: served. torn: file -> bytes after which its connection breaks. broken: answer everything with 500.
        asked: (method, path) of every request.
    """

    def __init__(self, folder: Path):
        self.folder, self.torn, self.broken = folder, dict[str, int](), False
        self.asked: list[tuple[str, str]] = []
        self.url = ""


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(False)

        def do_GET(self):
            self._answer(True)

        def log_message(self, *args):
            pass

        def _answer(self, body: bool) -> None:
            hub.asked.append((self.command, self.path))
            parts = self.path.lstrip("/").split("/")
            if hub.broken:
                self._fail(500, "")
            elif "/".join(parts[:2]) != NAME or len(parts) != 5 or parts[2] != "resolve":
                self._fail(404, "RepoNotFound")
            elif parts[3] not in REVISIONS:
                self._fail(404, "RevisionNotFound")
            elif not (hub.folder / parts[4]).is_file():
                self._fail(404, "EntryNotFound")
            else:
                self._send(parts[4], body)

        def _fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, name: str, body: bool) -> None:
            content = (hub.folder / name).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0]) if body else 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if body:
                self.wfile.write(content[start : hub.torn.get(name)])

    return Handler


@contextmanager
def fake_hub(folder: Path) -> Iterator[FakeHub]:
    hub = FakeHub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
