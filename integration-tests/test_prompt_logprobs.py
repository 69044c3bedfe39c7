"""What the launched server says of its prompts' own tokens, compared with what `transformers` says of them.

Steps are small here, so that prompts come back in several pieces.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import launched
from harness.embedded import IMAGE_TOKENS
from harness.launched import Server
from harness.pictures import drawing, markdown
from harness.types import Json
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText

import text_generation_server

CHECKPOINT = Path(text_generation_server.__file__).parent / "embedded"
STEP_TOKENS = 48
TOLERANCE = 5e-4
QUESTION = "What is this a picture of?\n\n"
TEXT = "A red square stands beside a blue circle, and nobody knows what the yellow star behind them is for. " * 3


@pytest.fixture(scope="module")
def scoring(logs: Path) -> Iterator[Server]:
    """A server that lists prompts, a few tokens a step."""
    flags = ("--enable-prefill-logprobs", "--max-batch-prefill-tokens", str(STEP_TOKENS))
    with launched.running(logs / "scoring.log", *flags) as server:
        yield server


@cache
def model() -> Any:
    """The embedded model as it is."""
    stock: Any = AutoModelForImageTextToText
    return stock.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


@torch.inference_mode()
def wanted(ids: list[int], **inputs: Tensor) -> list[float]:
    """The log-probability of every token but the first."""
    token_ids = torch.tensor([ids])
    logits = model()(input_ids=token_ids, attention_mask=torch.ones_like(token_ids), **inputs).logits[0]
    chosen: list[float] = logits.log_softmax(-1)[:-1].gather(-1, token_ids[0, 1:, None]).flatten().tolist()
    return chosen


def tokens_of(server: Server, text: str) -> list[int]:
    """A text as tokens, with nothing around them."""
    body = {"prompt": text, "add_special_tokens": False}
    ids: list[int] = server.post("/tokenize", body).json()["tokens"]
    return ids


def echoed(server: Server, prompt: object, **fields: object) -> list[Json]:
    """The choices of a request as evaluation tools send it."""
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1, "seed": 1, **fields}
    reply = server.post("/v1/completions", body)
    assert reply.status_code == 200, reply.text
    choices: list[Json] = reply.json()["choices"]
    return choices


def check(logprobs: Json, ids: list[int], generated: int = 1) -> None:
    """The shape that evaluation tools read, and every number of the prompt."""
    lengths = {len(logprobs[field]) for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
    assert lengths == {len(ids) + generated}
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    expected = wanted(ids)
    assert logprobs["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=TOLERANCE)
    assert sum(logprobs["token_logprobs"][1 : len(ids)]) == pytest.approx(sum(expected), abs=TOLERANCE * len(ids))
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


def test_token_ids_are_scored(server: Server) -> None:
    """By a server without any flag: context and continuation, as lm-evaluation-harness asks for them."""
    context, continuation = tokens_of(server, "What is this a picture of?"), tokens_of(server, " A red square.")
    [choice] = echoed(server, [*context, *continuation])
    check(choice["logprobs"], [*context, *continuation])
    scores = choice["logprobs"]["token_logprobs"][len(context) : -1]
    assert sum(scores) == pytest.approx(sum(wanted([*context, *continuation])[len(context) - 1 :]), abs=TOLERANCE * 9)
    for best in choice["logprobs"]["top_logprobs"][1:]:
        assert 1 <= len(best) <= 2


@pytest.mark.parametrize("tokens", [2, STEP_TOKENS - 1, STEP_TOKENS, STEP_TOKENS + 1, 2 * STEP_TOKENS + 7])
def test_a_prompt_in_several_pieces(scoring: Server, tokens: int) -> None:
    ids = tokens_of(scoring, TEXT)[:tokens]
    [choice] = echoed(scoring, ids)
    check(choice["logprobs"], ids)


def test_a_prompt_that_is_cached_is_scored_again(scoring: Server) -> None:
    ids = tokens_of(scoring, TEXT)[10:90]
    first, second = (echoed(scoring, ids)[0] for _ in range(2))
    check(first["logprobs"], ids)
    assert second["logprobs"]["token_logprobs"] == pytest.approx(first["logprobs"]["token_logprobs"], abs=1e-5)


def test_several_prompts_at_once(server: Server) -> None:
    prompts = [tokens_of(server, TEXT)[:length] for length in (5, 40, 1)]
    for choice, ids in zip(echoed(server, prompts), prompts, strict=True):
        check(choice["logprobs"], ids)


def test_nothing_but_the_prompt(server: Server) -> None:
    ids = tokens_of(server, "A red square.")
    [choice] = echoed(server, ids, max_tokens=0)
    check(choice["logprobs"], ids, generated=0)
    assert (choice["text"], choice["finish_reason"]) == ("A red square.", "length")


def test_texts_are_placed_in_the_answer(server: Server) -> None:
    [choice] = echoed(server, QUESTION, max_tokens=4)
    text, logprobs = choice["text"], choice["logprobs"]
    assert text.startswith(QUESTION)
    said = "".join(logprobs["tokens"])
    start = said.index(QUESTION)
    for index, offset in enumerate(logprobs["text_offset"]):
        begin = len("".join(logprobs["tokens"][:index])) - start
        # A turn of a chat stands around the question, and nothing of that in the answer.
        assert offset == begin or not 0 <= begin < len(QUESTION)


def test_streams_beside_are_not_disturbed(scoring: Server) -> None:
    ids = tokens_of(scoring, TEXT)
    body = {"inputs": QUESTION, "parameters": {"max_new_tokens": 24, "details": True}}
    alone = scoring.post("/generate", body).json()["details"]["tokens"]
    with ThreadPoolExecutor(8) as pool:
        generated = [pool.submit(scoring.post, "/generate", body) for _ in range(3)]
        scored = [pool.submit(echoed, scoring, ids[start : start + 70]) for start in range(0, 5)]
        for answer in generated:
            tokens = answer.result().json()["details"]["tokens"]
            assert [token["id"] for token in tokens] == [token["id"] for token in alone]
        for start, reply in enumerate(scored):
            check(reply.result()[0]["logprobs"], ids[start : start + 70])


def test_prefill_lists_every_token_of_a_picture(scoring: Server, red_square_uri: str) -> None:
    parameters = {"max_new_tokens": 4, "decoder_input_details": True}
    body = {"inputs": markdown(red_square_uri) + QUESTION, "parameters": parameters}
    prefill = scoring.post("/generate", body).json()["details"]["prefill"]
    ids = [token["id"] for token in prefill]
    assert ids.count(model().config.image_token_id) == IMAGE_TOKENS
    assert prefill[0]["logprob"] is None and set(prefill[0]) == {"id", "text", "logprob"}
    loader: Any = AutoImageProcessor
    processor = loader.from_pretrained(CHECKPOINT, backend="pil")
    pixels = processor(drawing("square", "red", "white"), return_tensors="pt")
    expected = wanted(ids, pixel_values=pixels["pixel_values"])
    assert [token["logprob"] for token in prefill[1:]] == pytest.approx(expected, abs=2e-3)


def test_prefill_is_empty_without_the_flag(server: Server) -> None:
    parameters = {"max_new_tokens": 2, "decoder_input_details": True}
    reply = server.post("/generate", {"inputs": "a", "parameters": parameters})
    assert (reply.status_code, reply.json()["details"]["prefill"]) == (200, [])
    assert server.post("/generate_stream", {"inputs": "a", "parameters": parameters}).status_code == 422
