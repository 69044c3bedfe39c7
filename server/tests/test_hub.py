"""Downloads, against a Hub of our own: one repository, served over HTTP on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from text_generation_server import hub
from text_generation_server.hub import ModelUnavailable

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


class Repository(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = FILES
    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/some/model/tree/"):
            self.send(json.dumps(self.tree()).encode(), {}, with_body=with_body)
        elif path.startswith("/api/models/some/model"):
            listed = [{"rfilename": name} for name in self.files]
            info = {"id": "some/model", "sha": COMMIT, "siblings": listed}
            self.send(json.dumps(info).encode(), {}, with_body=with_body)
        elif (name := path.removeprefix(f"/some/model/resolve/{COMMIT}/")) in self.files:
            if with_body:
                self.requested.append(name)
            headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
            self.send(self.files[name], headers, with_body=with_body)
        else:
            self.send(b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body, status=404)

    def tree(self) -> list[dict[str, object]]:
        return [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in self.files.items()]

    def send(self, body: bytes, headers: dict[str, str], *, with_body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Repository.files, Repository.requested = dict(FILES), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
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


def test_what_is_needed_is_downloaded(endpoint: str, tmp_path: Path) -> None:
    answer = resolve_in_child(endpoint, tmp_path)
    folder = Path(answer["dir"])
    assert sorted(path.name for path in folder.iterdir()) == ["chat_template.jinja", "config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert answer["revision"] == COMMIT


def test_progress_is_told_to_programs(endpoint: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in resolve_in_child(endpoint, tmp_path)["log"].splitlines()]
    told = [line["progress"] for line in lines if "progress" in line]
    assert told[-1]["what"] == "some/model"
    assert told[-1]["done"] == told[-1]["total"] == 3000 + len(FILES["config.json"]) + 1


def test_a_second_start_downloads_nothing(endpoint: str, tmp_path: Path) -> None:
    first = resolve_in_child(endpoint, tmp_path)
    Repository.requested.clear()
    assert resolve_in_child(endpoint, tmp_path)["dir"] == first["dir"]
    assert Repository.requested == []


def test_a_cached_model_starts_offline(endpoint: str, tmp_path: Path) -> None:
    first = resolve_in_child(endpoint, tmp_path)
    again = resolve_in_child("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert again["dir"] == first["dir"]


def test_a_cached_model_starts_when_the_hub_is_away(endpoint: str, tmp_path: Path) -> None:
    first = resolve_in_child(endpoint, tmp_path)
    again = resolve_in_child("http://127.0.0.1:9", tmp_path)
    assert again["dir"] == first["dir"]
    assert "the Hub did not answer" in again["log"]


def test_a_half_downloaded_model_is_not_a_model(endpoint: str, tmp_path: Path) -> None:
    folder = Path(resolve_in_child(endpoint, tmp_path)["dir"])
    (folder / "model.safetensors").unlink()
    assert "not in the local cache" in resolve_in_child("http://127.0.0.1:9", tmp_path)["refused"]


@pytest.mark.parametrize("environ", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_an_unknown_model_without_a_hub_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    answer = resolve_in_child("http://127.0.0.1:9", tmp_path, **environ)
    assert "not in the local cache" in answer["refused"]


def test_pickled_weights_are_refused_before_they_are_fetched(endpoint: str, tmp_path: Path) -> None:
    Repository.files = {name: body for name, body in FILES.items() if not name.endswith(".safetensors")}
    answer = resolve_in_child(endpoint, tmp_path)
    assert "only pickled weights (pytorch_model.bin)" in answer["refused"]
    assert "pytorch_model.bin" not in Repository.requested


def test_an_unknown_repository_is_refused(endpoint: str, tmp_path: Path) -> None:
    assert "the Hub shows no such repository" in resolve_in_child(endpoint, tmp_path, model_id="no/such")["refused"]


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    model = hub.resolve(str(tmp_path))
    assert (model.model_dir, model.revision) == (tmp_path, None)


@pytest.mark.parametrize("model_id", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_missing_directory_is_no_repository(model_id: str) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        hub.resolve(model_id)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="neither a directory nor the name"):
        hub.resolve("not a name!")
