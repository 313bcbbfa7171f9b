"""A server on this machine that answers downloads and uploads as the Hugging Face Hub does, and can fail like it.

One repository, ``someone/model``: ``HEAD`` and ``GET /OWNER/NAME/resolve/REVISION/FILE``. Uploads go to ``received``,
by the requests that huggingface_hub sends: make a repository, ask how each file is to be sent, large ones by Git
LFS, and a commit that holds the small ones.
"""

import base64
import hashlib
import json
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
        token: that uploads need. received: file -> content of the last commit, None without a repository.
        private: whether the repository was made so.
    """

    def __init__(self, folder: Path):
        self.folder, self.torn, self.broken = folder, dict[str, int](), False
        self.asked: list[tuple[str, str]] = []
        self.url, self.token, self.private = "", "hf_test", False
        self.received: dict[str, bytes] | None = None
        self.large: dict[str, bytes] = {}


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
            elif self.path == f"/api/models/{NAME}" and hub.received is not None:
                self._say({"id": NAME, "private": hub.private, "tags": [], "siblings": []})
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

        def do_POST(self):
            hub.asked.append((self.command, self.path))
            said = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                said = b""
                while size := int(self.rfile.readline(), 16):
                    said += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._fail(401, "")
            elif self.path == "/api/repos/create":
                self._make(json.loads(said))
            elif self.path == "/api/validate-yaml":
                self._say({"errors": [], "warnings": []})
            elif hub.received is None:
                self._fail(404, "RepoNotFound")
            elif self.path == f"/api/models/{NAME}/preupload/main":
                mode = {True: "lfs", False: "regular"}
                files = [file["path"] for file in json.loads(said)["files"]]
                kinds = [{"path": f, "uploadMode": mode[f.endswith((".safetensors", ".npz"))]} for f in files]
                self._say({"files": [{**kind, "shouldIgnore": False} for kind in kinds]})
            elif self.path == f"/{NAME}.git/info/lfs/objects/batch":
                objects = json.loads(said)["objects"]
                places = [{**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}} for o in objects]
                self._say({"transfer": "basic", "objects": places})
            elif self.path == f"/api/models/{NAME}/commit/main":
                self._commit([json.loads(line) for line in said.splitlines()])
            else:
                self._fail(404, "")

        def do_PUT(self):
            hub.asked.append((self.command, self.path))
            content = self.rfile.read(int(self.headers["Content-Length"]))
            name = self.path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == name
            hub.large[name] = content
            self._say({})

        def _make(self, wanted: dict) -> None:
            there = hub.received is not None
            if not there:
                hub.received, hub.private = {}, wanted.get("private", False) or wanted.get("visibility") == "private"
            self._say({"url": f"{hub.url}/{wanted['organization']}/{wanted['name']}"}, 409 if there else 200)

        def _commit(self, lines: list[dict]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.received[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.received[value["path"]] = hub.large[value["oid"]]
            self._say({"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{NAME}/commit/{COMMIT}"})

        def _say(self, content: dict, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

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
