"""`prepare`: what it writes, what it costs, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import checkpoint
from transformers import AutoTokenizer

from text_generation_server import model_facts, prepare
from text_generation_server.prepare import EMBEDDED_DIR, EMBEDDED_FILE

SERVER = Path(__file__).resolve().parent.parent
NO_ENVIRON: dict[str, str] = {}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """The embedded model's small files and weights of no length, to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model_facts.small_files(EMBEDDED_DIR):
        shutil.copy(path, folder)
    (folder / "model.safetensors").touch()
    return folder


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    edit(content)
    path.write_text(json.dumps(content))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def run_in_child(arguments: list[str]) -> tuple[str, list[str]]:
    """What `prepare` prints, and the heavy modules that were imported for it."""
    program = (
        "import os, sys; from text_generation_server.prepare import main; status = main(sys.argv[1:], os.environ);"
        "heavy = {'torch', 'transformers', 'tokenizers', 'jinja2', 'numpy'} & set(sys.modules);"
        "print('heavy', *sorted(heavy), file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=SERVER, capture_output=True, text=True, check=True, timeout=240)
    return done.stdout, done.stderr.splitlines()[-1].split()[1:]


def test_the_ready_made_file_is_what_prepare_would_write() -> None:
    written = json.loads(json.dumps(prepare.embedded()))
    assert written == read(EMBEDDED_FILE), "run tools/prepare_embedded.py"


def test_the_embedded_model_is_answered_without_asking() -> None:
    stdout, heavy = run_in_child([])
    assert stdout == f"{EMBEDDED_FILE}\n"
    assert heavy == []


def test_a_prepared_model_is_answered_without_transformers(model_dir: Path, tmp_path: Path) -> None:
    arguments = ["--model-id", str(model_dir), "--cache-dir", str(tmp_path / "cache")]
    first, heavy = run_in_child(arguments)
    assert "transformers" in heavy
    again, heavy = run_in_child(arguments)
    assert (again, heavy) == (first, [])
    assert len(first.splitlines()) == 1
    assert Path(first.strip()).is_absolute()


def test_the_file_names_its_model(model_dir: Path, tmp_path: Path) -> None:
    facts = read(prepare.prepare(str(model_dir), None, tmp_path / "cache"))
    ready_made = read(EMBEDDED_FILE)
    assert facts["model_dir"] == facts["model_id"] == str(model_dir)
    assert facts["revision"] is None
    assert "raw_prompt" not in facts
    assert facts["identity"] == ready_made["identity"]
    for key in ("config", "processor", "tokenizer", "control_tokens", "chat_template", "eos_token_ids"):
        assert facts[key] == ready_made[key]


def test_a_changed_file_is_prepared_anew(model_dir: Path, tmp_path: Path) -> None:
    first = prepare.prepare(str(model_dir), None, tmp_path / "cache")
    assert prepare.prepare(str(model_dir), None, tmp_path / "cache") == first
    change(model_dir / "generation_config.json", lambda content: content.update(eos_token_id=[3, 2]))
    second = prepare.prepare(str(model_dir), None, tmp_path / "cache")
    assert second != first
    assert read(second)["eos_token_ids"] == [3, 2]
    assert read(second)["identity"] != read(first)["identity"]


def test_weights_do_not_count(model_dir: Path) -> None:
    before = model_facts.content_hash(model_dir)
    (model_dir / "model.safetensors").write_bytes(b"other")
    (model_dir / "prepared.json").write_text("{}")
    assert model_facts.content_hash(model_dir) == before


TEMPLATES: dict[str, Callable[[Path], object]] = {
    "jinja": lambda folder: (folder / "chat_template.jinja").write_text("T"),
    "legacy": lambda folder: change(folder / "chat_template.json", lambda it: it.update(chat_template="T")),
    "tokenizer": lambda folder: change(folder / "tokenizer_config.json", lambda it: it.update(chat_template="T")),
    "processor": lambda folder: change(folder / "processor_config.json", lambda it: it.update(chat_template="T")),
    "named list": lambda folder: change(
        folder / "tokenizer_config.json",
        lambda it: it.update(
            chat_template=[{"name": "tool_use", "template": "X"}, {"name": "default", "template": "T"}]
        ),
    ),
    "named map": lambda folder: change(
        folder / "chat_template.json", lambda it: it.update(chat_template={"default": "T", "rag": "X"})
    ),
}


@pytest.mark.parametrize("place", TEMPLATES)
def test_the_chat_template_is_found(model_dir: Path, place: str) -> None:
    (model_dir / "chat_template.jinja").unlink()
    assert model_facts.chat_template(model_dir) is None
    TEMPLATES[place](model_dir)
    assert model_facts.chat_template(model_dir) == "T"


def test_a_template_file_goes_before_the_tokenizers(model_dir: Path) -> None:
    TEMPLATES["jinja"](model_dir)
    change(model_dir / "tokenizer_config.json", lambda it: it.update(chat_template="X"))
    assert model_facts.chat_template(model_dir) == "T"


CONTROL_TEMPLATES = [
    "{{ messages }}",
    "{% for m in messages %}<tool_call>{{ m.content }}{% endfor %}",
    "{{ '<tool_call>' + messages[0].content }}",
    "{# <tool_call> #}{{ '<tool' + '_call>' }}",
    "{%- generation %}<tool_call>{% endgeneration -%}{% for m in messages %}{% continue %}{% endfor %}",
]


@pytest.mark.parametrize("template", CONTROL_TEMPLATES)
def test_control_tokens_are_those_of_transformers(model_dir: Path, template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens(["<tool_call>", "<unused>", "\n\n"])
    expected = sorted(tokenizer._get_control_tokens(template))
    assert sorted(model_facts.control_tokens(tokenizer, template, [])) == expected


def test_declared_control_tokens_replace_those_of_the_template(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens(["<tool_call>", "<unused>"])
    tokenizer.chat_control_tokens = ["<unused>"]
    template = "<tool_call>"
    expected = sorted(tokenizer._get_control_tokens(template))
    assert sorted(model_facts.control_tokens(tokenizer, template, [])) == expected
    assert "<unused>" in expected and "<tool_call>" not in expected


def test_media_tokens_are_control_tokens_whatever_their_flag(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens(["<video>", "<sound>"])
    video = tokenizer.convert_tokens_to_ids("<video>")
    config: dict[str, object] = {"image_token_index": 4, "video_token_id": video, "audio_token_id": None}
    media = model_facts.media_tokens(tokenizer, config, {"audio_token": "<sound>", "video_token": "<video>"})
    assert media == ["<image>", "<video>", "<sound>"]
    assert {"<video>", "<sound>"} <= set(model_facts.control_tokens(tokenizer, "", media))


@pytest.mark.parametrize(("configured", "expected"), [(None, [2]), (3, [3, 2]), ([1, 3], [1, 3, 2]), (2, [2])])
def test_end_tokens(model_dir: Path, configured: object, expected: list[int]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    assert model_facts.eos_token_ids(tokenizer, {"eos_token_id": configured}) == expected


def test_the_tokenizer_never_cuts_or_fills(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer("a text", truncation=True, max_length=1, padding="max_length")
    pipeline = model_facts.tokenizer_pipeline(tokenizer)
    assert (pipeline["truncation"], pipeline["padding"]) == (None, None)


def test_the_tokenizer_is_as_the_processor_leaves_it(tmp_path: Path) -> None:
    """PaliGemma's writes the first token itself, behind the images."""
    folder = checkpoint.build("paligemma", tmp_path / "paligemma")
    assert AutoTokenizer.from_pretrained(folder)("x").input_ids[0] == 2
    facts = model_facts.model_facts(folder)
    pipeline: Any = facts["tokenizer"]
    assert pipeline["post_processor"]["special_tokens"] == {}


def test_processor_settings_have_their_defaults(model_dir: Path) -> None:
    (model_dir / "processor_config.json").unlink()
    change(model_dir / "preprocessor_config.json", lambda it: (it.pop("rescale_factor"), it.pop("do_convert_rgb")))
    settings = model_facts.processor_settings(model_dir)
    assert settings["do_convert_rgb"] is True
    assert settings["rescale_factor"] == pytest.approx(1 / 255)
    assert settings["size"] == read(model_dir / "preprocessor_config.json")["size"]


def test_settings_of_an_unknown_class_are_taken_as_written(model_dir: Path) -> None:
    (model_dir / "processor_config.json").unlink()
    change(model_dir / "config.json", lambda it: it.update(model_type="nobody_knows"))
    change(model_dir / "preprocessor_config.json", lambda it: it.update(image_processor_type="NobodyKnows", x=[1]))
    settings = model_facts.processor_settings(model_dir)
    assert settings["x"] == [1]
    assert settings["image_processor_type"] == "NobodyKnows"


def test_a_text_model_has_no_processor_settings(model_dir: Path) -> None:
    (model_dir / "processor_config.json").unlink()
    (model_dir / "preprocessor_config.json").unlink()
    assert model_facts.processor_settings(model_dir) == {}


def test_outer_settings_stand_beside_those_of_the_image_processor() -> None:
    merged = model_facts.merge_settings(
        {"patch_size": 16, "image_token": "[IMG]", "image_processor": {"a": 1}},
        {"patch_size": {"height": 16, "width": 16}, "size": (1, 2)},
    )
    assert merged == {
        "patch_size": {"height": 16, "width": 16},
        "processor_patch_size": 16,
        "image_token": "[IMG]",
        "size": (1, 2),
    }
    assert model_facts.plain({"size": (1, 2.0), "flag": True, "none": None}) == {
        "size": [1, 2.0],
        "flag": True,
        "none": None,
    }


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors weights"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "only pickled weights (pytorch_model.bin)",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "does not hold a JSON object"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(
    model_dir: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(model_dir)
    cache_dir = model_dir / "cache"
    cache_dir.mkdir()
    assert prepare.main(["--model-id", str(model_dir), "--cache-dir", str(cache_dir)], NO_ENVIRON) == 1
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.out == ""
    assert list(cache_dir.iterdir()) == []


def test_a_refusal_prints_no_path(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["--model-id", str(model_dir / "nowhere")], NO_ENVIRON) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "does not exist" in printed.err


def test_whatever_a_library_prints_is_not_the_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def chatty(*_: object, **__: object) -> Path:
        sys.stdout.write("loading…\n")
        return tmp_path / "prepared.json"

    monkeypatch.setattr(prepare, "prepare", chatty)
    assert prepare.main(["--model-id", "a/b"], NO_ENVIRON) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'prepared.json'}\n"


def test_the_cache_follows_the_environment() -> None:
    assert prepare.default_cache_dir({"XDG_CACHE_HOME": "/c"}) == Path("/c/text-generation-vlm/prepared")
    assert prepare.default_cache_dir({}) == Path.home() / ".cache/text-generation-vlm/prepared"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "prepared.json"
    with pytest.raises(TypeError):
        prepare.write_atomically(path, {"x": object()})
    assert list(path.parent.iterdir()) == []
    prepare.write_atomically(path, {"x": 1})
    assert read(path) == {"x": 1}
