"""Every family, launched on its tiny checkpoint, gives the prompts, tokens and log-probabilities of `transformers`.

The answers are in `goldens/families` and, of models without a file of ours, in `goldens/fallback`, written by
`tools/goldens_families.py`. Requests go out side by side, so that prompts are cut and mixed as they happen to be; each
goes out twice, the second time to a warm prefix cache.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from families import cases, checkpoint, find
from families.oracle import NUM_TOKENS
from families.tokenizers import byte_alphabet
from harness import launched
from harness.calls import image_part, text_part
from harness.launched import Server
from harness.pictures import sha256
from harness.types import Json

GOLDENS = Path(__file__).parent / "goldens"
LOGPROB_TOLERANCE = 5e-4
MAX_TIES = 0.03
AT_ONCE = 8
FILES = {path.stem: path for folder in ("families", "fallback") for path in sorted((GOLDENS / folder).glob("*.json"))}
UNPRINTED = {letter: byte for byte, letter in byte_alphabet().items()}


@dataclass(frozen=True)
class Launched:
    """A family that is served, and what was written down of it."""

    name: str
    golden: Json
    server: Server
    pieces: list[str]
    """Token ids to what the vocabulary calls them."""

    def asked(self) -> list[tuple[cases.Case, Json]]:
        """Each case with its golden."""
        return list(zip(cases.cases(find(self.name)), self.golden["cases"], strict=True))

    @property
    def chats(self) -> bool:
        """Whether it has a chat template; without one its prompts go to the native routes."""
        return find(self.name).chat_template is not None


@dataclass(frozen=True)
class Answer:
    """What a route says of an answer. The native ones do not tell images and cached tokens apart."""

    tokens: list[tuple[list[int], float]]
    """What each token stands for, in bytes, and its log-probability."""
    prompt_tokens: int
    image_tokens: int | None = None
    cached_tokens: int = 0


@pytest.fixture(scope="module", params=FILES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A launched family."""
    folder = tmp_path_factory.mktemp(request.param)
    golden = json.loads(FILES[request.param].read_text())
    model_dir = checkpoint.build(request.param, folder / "model")
    weights = hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()
    assert weights == golden["weights_sha256"], "another checkpoint: run tools/goldens_families.py"
    vocab = find(request.param).tokenizer.pipeline.get_vocab()
    flags = ("--model-id", str(model_dir), "--dtype", "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_CACHE_HOME", str(folder / "cache"))
        with launched.running(folder / "server.log", *flags) as server:
            yield Launched(request.param, golden, server, sorted(vocab, key=vocab.__getitem__))


def messages(case: cases.Case) -> list[Json]:
    """A conversation as chat clients send it."""
    turns = ((role, [_part(part) for part in parts]) for role, parts in case.turns)
    return [{"role": role, "content": content} for role, content in turns]


def _part(part: cases.Part) -> Json:
    return text_part(part) if isinstance(part, str) else image_part(part.url)


def inputs(case: cases.Case) -> str:
    """A single turn as clients of the native routes send it."""
    [(_, parts)] = case.turns
    return "".join(part if isinstance(part, str) else f"![]({part.url})" for part in parts)


def unfolded(runs: list[int | list[int]]) -> list[int]:
    """Numbers of which [number, count] stands for a run of equal ones."""
    pairs = (run if isinstance(run, list) else [run, 1] for run in runs)
    return [number for number, count in pairs for _ in range(count)]


def token_bytes(piece: str) -> list[int]:
    """What a token of the vocabulary stands for."""
    if re.fullmatch("<0x[0-9A-F]{2}>", piece):
        return [int(piece[3:5], 16)]
    if "▁" not in piece and all(letter in UNPRINTED for letter in piece):
        return [UNPRINTED[letter] for letter in piece]
    return list(piece.replace("▁", " ").encode())


def test_there_are_goldens() -> None:
    assert {path.parent.name for path in FILES.values()} == {"families", "fallback"}


def test_pictures_are_those_recorded(family: Launched) -> None:
    for case, golden in family.asked():
        assert (case.name, [sha256(file.data)[:16] for file in case.files]) == (golden["name"], golden["files"])


def test_prompt_ids(family: Launched) -> None:
    def ids(case: cases.Case) -> list[int]:
        if family.chats:
            tokens = posted(family, "/chat_tokenize", {"messages": messages(case)}).json()["tokenize_response"]
        else:
            tokens = posted(family, "/tokenize", {"inputs": inputs(case)}).json()
        return [token["id"] for token in tokens]

    asked = family.asked()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (case, golden), found in zip(asked, pool.map(ids, [case for case, _ in asked]), strict=True):
            assert found == unfolded(golden["ids"]), case.name


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_answers(family: Launched, cache: str) -> None:
    def answer(case: cases.Case) -> Answer:
        return chat_answer(family, case) if family.chats else plain_answer(family, case)

    asked = family.asked()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(answer, [case for case, _ in asked]))
    assert cache == "cold" or not family.chats or sum(found.cached_tokens for found in answers) > 0
    ties = sum(is_tied(family, found, golden) for found, (_, golden) in zip(answers, asked, strict=True))
    assert ties < MAX_TIES * len(asked)


def posted(family: Launched, route: str, body: Json) -> requests.Response:
    """An answer that must be one."""
    reply = family.server.post(route, body)
    assert reply.status_code == 200, reply.text
    return reply


def chat_answer(family: Launched, case: cases.Case) -> Answer:
    """Over the chat route."""
    body = {"messages": messages(case), "temperature": 0, "logprobs": True, "ignore_eos": True}
    found = posted(family, "/v1/chat/completions", body | {"max_tokens": NUM_TOKENS}).json()
    usage, content = found["usage"], found["choices"][0]["logprobs"]["content"]
    details = usage["prompt_tokens_details"]
    tokens = [(entry["bytes"], entry["logprob"]) for entry in content]
    return Answer(tokens, usage["prompt_tokens"], details["image_tokens"], details["cached_tokens"])


def plain_answer(family: Launched, case: cases.Case) -> Answer:
    """Over the native route."""
    parameters = {"max_new_tokens": NUM_TOKENS, "details": True}
    reply = posted(family, "/generate", {"inputs": inputs(case), "parameters": parameters})
    details = reply.json()["details"]
    tokens = [(token_bytes(family.pieces[token["id"]]), token["logprob"]) for token in details["tokens"]]
    return Answer(tokens, int(reply.headers["x-prompt-tokens"]))


def is_tied(family: Launched, found: Answer, golden: Json) -> bool:
    """Compares an answer; whether it went another way where the reference was as good as undecided."""
    assert found.prompt_tokens == len(unfolded(golden["ids"])), golden["name"]
    assert found.image_tokens in (None, golden["image_tokens"]), golden["name"]
    assert len(found.tokens) == len(golden["tokens"]), golden["name"]
    wanted = zip(found.tokens, golden["tokens"], golden["logprobs"], strict=True)
    for index, ((stands_for, logprob), token, expected_logprob) in enumerate(wanted):
        place, expected = f"{golden['name']}: token {index}", token_bytes(family.pieces[token])
        if stands_for != expected:
            assert index in golden["ties"], f"{place} is {bytes(stands_for)!r}, not {bytes(expected)!r}"
            return True
        assert logprob == pytest.approx(expected_logprob, abs=LOGPROB_TOLERANCE), place
    return False
