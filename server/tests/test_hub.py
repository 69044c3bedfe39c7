"""Downloads, against a Hub of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, FILES, Repository, hub_of, resolve_in_child

from text_generation_server import hub
from text_generation_server.hub import ModelUnavailable


@pytest.fixture
def repository() -> Iterator[Repository]:
    with hub_of(Repository()) as repository:
        yield repository


@pytest.fixture
def endpoint(repository: Repository) -> str:
    return repository.endpoint


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


def test_a_second_start_downloads_nothing(repository: Repository, tmp_path: Path) -> None:
    first = resolve_in_child(repository.endpoint, tmp_path)
    repository.requested.clear()
    assert resolve_in_child(repository.endpoint, tmp_path)["dir"] == first["dir"]
    assert repository.requested == []


def test_a_download_that_was_cut_goes_on_where_it_was(repository: Repository, tmp_path: Path) -> None:
    # The library writes pieces of 10 MiB.
    weights = repository.files["model.safetensors"] = bytes(range(256)) * (3 << 16)
    repository.cut_after["model.safetensors"] = 25 << 20
    answer = resolve_in_child(repository.endpoint, tmp_path)
    assert repository.ranges == [f"model.safetensors:{20 << 20}"]
    assert (Path(answer["dir"]) / "model.safetensors").read_bytes() == weights


def test_a_damaged_file_is_refused_and_fetched_anew(repository: Repository, tmp_path: Path) -> None:
    repository.damaged.add("model.safetensors")
    refused = resolve_in_child(repository.endpoint, tmp_path)["refused"]
    assert refused == "model.safetensors of some/model came damaged and was removed; start again to fetch it"
    repository.damaged.clear()
    answer = resolve_in_child(repository.endpoint, tmp_path)
    assert (Path(answer["dir"]) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_file_that_the_index_names_must_be_there(repository: Repository, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    repository.files["model.safetensors.index.json"] = json.dumps(index).encode()
    refused = resolve_in_child(repository.endpoint, tmp_path)["refused"]
    assert "some/model lacks model-00002-of-00002.safetensors" in refused


def test_a_gated_model_needs_the_token(repository: Repository, tmp_path: Path) -> None:
    repository.token = "hf_secret"
    refused = resolve_in_child(repository.endpoint, tmp_path)["refused"]
    assert "private and gated ones need HF_TOKEN" in refused
    answer = resolve_in_child(repository.endpoint, tmp_path, HF_TOKEN="hf_secret")
    assert answer["revision"] == COMMIT
    assert "hf_secret" not in answer["log"]


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


def test_pickled_weights_are_refused_before_they_are_fetched(repository: Repository, tmp_path: Path) -> None:
    repository.files = {name: body for name, body in FILES.items() if not name.endswith(".safetensors")}
    answer = resolve_in_child(repository.endpoint, tmp_path)
    assert "only pickled weights (pytorch_model.bin)" in answer["refused"]
    assert "pytorch_model.bin" not in repository.requested


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
