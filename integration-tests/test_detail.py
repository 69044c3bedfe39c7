"""`detail` of a picture as a number of tokens: `low` is the model's own processor with less room, `high` and `auto` are
the processor as it is. Families whose pictures have one size make the same of all three."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from families import checkpoint, find
from families.oracle import Oracle, opened
from harness import launched, pictures
from harness.calls import chat, image_part, text_part
from harness.launched import Server
from harness.types import Json

QUESTION = "What is this?"
FILE = pictures.png(pictures.photo(3, (900, 700)))
PICTURE = pictures.data_uri(FILE)
LOW_TOKENS = 256


def qwen(processor: Any) -> None:
    """At most so many squares of pixels."""
    images = processor.image_processor
    images.size = {
        "shortest_edge": images.size["shortest_edge"],
        "longest_edge": LOW_TOKENS * (images.patch_size * images.merge_size) ** 2,
    }


def whole(processor: Any) -> None:
    """No tiles, no quarters."""
    processor.image_processor.do_image_splitting = False


def one_tile(processor: Any) -> None:
    """The outer processor asks for tiles in every call, but not for how many."""
    processor.image_processor.max_patches = 1


SETTINGS: dict[str, Callable[[Any], None]] = {
    "idefics2": whole,
    "idefics3": whole,
    "internvl": one_tile,
    "qwen2_vl": qwen,
    "smolvlm": whole,
}
"""How transformers is told the same."""


def give_room(model_dir: Path) -> None:
    """A tiny Qwen has less room than `low` leaves: sixteen times as much."""
    path = model_dir / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["size"]["longest_edge"] *= 16
    path.write_text(json.dumps(settings))


@dataclass(frozen=True)
class Launched:
    """A family that is served."""

    name: str
    server: Server
    folder: Path


@pytest.fixture(scope="module", params=["llava_next", "llava_onevision", *SETTINGS])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A launched family that cuts pictures up."""
    folder = tmp_path_factory.mktemp(request.param)
    model_dir = checkpoint.build(request.param, folder / "model")
    if request.param == "qwen2_vl":
        give_room(model_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_CACHE_HOME", str(folder / "cache"))
        with launched.running(folder / "server.log", "--model-id", str(model_dir), "--dtype", "float32") as server:
            yield Launched(request.param, server, model_dir)


def asked(server: Server, detail: str | None, **fields: object) -> Json:
    """An answer about the picture, at some detail."""
    part = image_part(PICTURE)
    if detail is not None:
        part["image_url"]["detail"] = detail
    return chat(server, [part, text_part(QUESTION)], temperature=0, max_tokens=8, **fields)


def image_tokens(answer: Json) -> int:
    """Tokens that stand for pictures."""
    tokens: int = answer["usage"]["prompt_tokens_details"]["image_tokens"]
    return tokens


def test_low_is_less_and_the_others_are_what_it_was(family: Launched) -> None:
    plain, low, auto, high = (asked(family.server, detail) for detail in (None, "low", "auto", "high"))
    assert image_tokens(low) < image_tokens(plain)
    for same in (auto, high):
        assert image_tokens(same) == image_tokens(plain)
        assert same["choices"] == plain["choices"]
    assert low["choices"][0]["message"]["content"]


def test_low_is_not_taken_for_high_by_a_cache(family: Launched) -> None:
    answers = [asked(family.server, detail) for detail in ("low", "high", "low", "high")]
    assert answers[0]["choices"] == answers[2]["choices"]
    assert answers[1]["choices"] == answers[3]["choices"]
    assert answers[2]["usage"]["prompt_tokens_details"]["cached_tokens"] <= answers[2]["usage"]["prompt_tokens"]


def test_low_is_the_processor_with_less_room(family: Launched) -> None:
    if family.name not in SETTINGS:
        expected = {"llava_next": 1, "llava_onevision": 1}[family.name]
        patches = find(family.name).config().vision_config
        side = patches.image_size // patches.patch_size
        assert image_tokens(asked(family.server, "low")) == side * side + expected
        return
    oracle = Oracle(family.folder)
    SETTINGS[family.name](oracle.processor)
    truth = oracle.ask([("user", [opened(FILE), QUESTION])], 8)
    found = asked(family.server, "low", logprobs=True, ignore_eos=True)
    assert found["usage"]["prompt_tokens"] == len(truth.token_ids)
    assert image_tokens(found) == truth.token_ids.count(oracle.image_token)
    logprobs = [entry["logprob"] for entry in found["choices"][0]["logprobs"]["content"]]
    assert logprobs == pytest.approx(truth.answer.logprobs, abs=5e-4)


def test_pictures_of_one_size_are_the_same_at_any_detail(server: Server) -> None:
    low, high = asked(server, "low"), asked(server, "high")
    assert low["choices"] == high["choices"]
    assert low["usage"]["prompt_tokens_details"]["image_tokens"] == image_tokens(high)


@pytest.mark.parametrize("detail", ["lowest", "", 3, ["low"]])
def test_an_unknown_detail_is_refused_by_name(server: Server, detail: object) -> None:
    part = {"type": "image_url", "image_url": {"url": PICTURE, "detail": detail}}
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]})
    assert reply.status_code == 422
    assert "detail" in reply.json()["error"] or "image_url" in reply.json()["error"]
