"""A Hub of our own: one repository, served over HTTP on this machine, with the faults that real ones have."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

SERVER = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "llava"}',
    "model.safetensors": b"x" * 3000,
    "consolidated.safetensors": b"y" * 3000,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "README.md": b"words",
    "chat_template.jinja": b"T",
}


@dataclass
class Repository:
    """What the Hub holds and what was asked of it. Faults name a file."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    cut_after: dict[str, int] = field(default_factory=dict)
    """The connection breaks after this many bytes, the first time."""
    damaged: set[str] = field(default_factory=set)
    """Other bytes of the same number are sent."""
    token: str | None = None
    """Without it every request is answered 401."""
    requested: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    endpoint: str = ""

    def etag(self, name: str) -> str:
        """Weights are large files, named by their hash; others by their content's name in git."""
        digest = hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1
        return digest(self.files[name]).hexdigest()

    def body(self, name: str) -> bytes:
        """What is sent for a file."""
        content = self.files[name]
        return bytes(byte ^ 1 for byte in content) if name in self.damaged else content


class Handler(BaseHTTPRequestHandler):
    """Answers for `repository`."""

    repository: Repository

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if self.repository.token and self.headers["Authorization"] != f"Bearer {self.repository.token}":
            self._send(b"{}", {"X-Error-Code": "GatedRepo"}, with_body=with_body, status=401)
        elif path.startswith("/api/models/some/model/tree/"):
            self._send(json.dumps(self._tree()).encode(), {}, with_body=with_body)
        elif path.startswith("/api/models/some/model"):
            listed = [{"rfilename": name} for name in self.repository.files]
            info = {"id": "some/model", "sha": COMMIT, "siblings": listed}
            self._send(json.dumps(info).encode(), {}, with_body=with_body)
        elif (name := path.removeprefix(f"/some/model/resolve/{COMMIT}/")) in self.repository.files:
            self._send_file(name, with_body=with_body)
        else:
            self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body, status=404)

    def _tree(self) -> list[dict[str, object]]:
        files = self.repository.files.items()
        return [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in files]

    def _send_file(self, name: str, *, with_body: bool) -> None:
        body, status = self.repository.body(name), 200
        headers = {"ETag": f'"{self.repository.etag(name)}"', "X-Repo-Commit": COMMIT}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked:
            self.repository.ranges.append(f"{name}:{asked[1]}")
            headers["Content-Range"] = f"bytes {asked[1]}-{len(body) - 1}/{len(body)}"
            body, status = body[int(asked[1]) :], 206
        if with_body:
            self.repository.requested.append(name)
        cut = self.repository.cut_after.pop(name, None) if with_body else None
        self._send(body, headers, with_body=with_body, status=status, cut=cut)

    def _send(
        self, body: bytes, headers: dict[str, str], *, with_body: bool, status: int = 200, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_of(repository: Repository) -> Iterator[Repository]:
    """Serves the repository; its `endpoint` says where."""
    handler = type("RepositoryHandler", (Handler,), {"repository": repository})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    repository.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield repository
    finally:
        server.shutdown()
        thread.join()


def resolve_in_child(endpoint: str, home: Path, model_id: str = "some/model", **environ: str) -> dict[str, str]:
    """What `resolve` answers in a process of its own: the library reads its settings once, at import."""
    program = (
        "import json, sys; from text_generation_server import hub, prepare; prepare.start_logging(json_output=True)\n"
        "try: model = hub.resolve(sys.argv[1], log_every_s=0.0)\n"
        "except hub.ModelUnavailable as error: print(json.dumps({'refused': str(error)}))\n"
        "else: print(json.dumps({'dir': str(model.model_dir), 'revision': model.revision}))"
    )
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environ}
    done = subprocess.run(
        [sys.executable, "-c", program, model_id],
        cwd=SERVER,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answer: dict[str, str] = json.loads(done.stdout)
    return {**answer, "log": done.stderr}
