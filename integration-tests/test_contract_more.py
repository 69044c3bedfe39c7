"""The contract, what came last: log-probabilities of prompts, `/v1/responses`, watermarks, `detail`, trace ids."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import checkpoint
from harness import launched
from harness.calls import chat, events, generate, image_part, text_part
from harness.embedded import ANSWER
from harness.launched import Server, wait_until
from harness.pictures import data_uri, drawing, markdown, png
from harness.refusals import mentions, refusal
from harness.types import Json

SCHEMA: Json = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square"]}},
    "required": ["shape"],
    "additionalProperties": False,
}
TOOL: Json = {"type": "function", "name": "report", "parameters": SCHEMA}


@pytest.fixture(scope="module")
def inputs(red_square_uri: str) -> str:
    """A prompt with a picture, whose answer is known."""
    return markdown(red_square_uri) + "What is this a picture of?\n\n"


@pytest.fixture(scope="module")
def scoring(logs: Path) -> Iterator[Server]:
    """A server that gives log-probabilities of prompts on TGI's routes too."""
    with launched.running(logs / "scoring.log", "--enable-prefill-logprobs") as server:
        yield server


@pytest.fixture(scope="module")
def tiling(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model whose pictures take more tokens the larger they are."""
    folder = tmp_path_factory.mktemp("tiling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_CACHE_HOME", str(folder / "cache"))
        flags = ("--model-id", str(checkpoint.build("llava_next", folder / "model")), "--dtype", "float32")
        with launched.running(logs / "tiling.log", *flags) as server:
            yield server


# --- Log-probabilities of prompts ------------------------------------------------------------------------------------


def test_keep_decoder_input_details_lists_the_prompt(scoring: Server, inputs: str) -> None:
    """A token for each of the prompt's, pictures included; the first has no log-probability."""
    details = generate(scoring, inputs, max_new_tokens=2, decoder_input_details=True)["details"]
    assert len(details["prefill"]) == 53
    assert all(token.keys() == {"id", "text", "logprob"} for token in details["prefill"])
    first, *others = (token["logprob"] for token in details["prefill"])
    assert first is None
    assert all(logprob <= 0 for logprob in others)
    assert generate(scoring, inputs, max_new_tokens=2)["details"]["prefill"] == []


def test_keep_decoder_input_details_is_not_for_streams(scoring: Server) -> None:
    """As TGI has it, with a status."""
    body = {"inputs": "x", "parameters": {"decoder_input_details": True}}
    mentions(refusal(scoring.post("/generate_stream", body), 422), "decoder_input_details")


def test_should_echo_prompts_with_log_probabilities(server: Server) -> None:
    """As evaluation tools ask: token ids, `echo`, `logprobs`, one token or none; it adds up with what is generated."""
    ids = server.post("/tokenize", {"prompt": "What is this?"}).json()["tokens"]
    asked = {"prompt": ids, "echo": True, "logprobs": 1, "temperature": 0}
    for max_tokens in (0, 1):
        [choice] = server.post("/v1/completions", {**asked, "max_tokens": max_tokens}).json()["choices"]
        found = choice["logprobs"]
        assert (
            len(found["tokens"]) == len(found["token_logprobs"]) == len(found["top_logprobs"]) == len(ids) + max_tokens
        )
        assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
        assert all(logprob <= 0 for logprob in found["token_logprobs"][1:])
        assert choice["text"].startswith("What is this?")
    # The prompt's last token, scored by itself: what a shorter prompt says of its continuation.
    bias = {str(ids[-1]): 100}
    shorter = {"prompt": ids[:-1], "max_tokens": 1, "logprobs": 1, "temperature": 0, "logit_bias": bias}
    [generated] = server.post("/v1/completions", shorter).json()["choices"]
    scored = found["token_logprobs"][len(ids) - 1]
    assert math.isclose(generated["logprobs"]["token_logprobs"][0], scored, abs_tol=1e-3)


# --- /v1/responses ---------------------------------------------------------------------------------------------------


def _content(red_square_uri: str) -> list[Json]:
    parts = [{"type": "input_image", "image_url": red_square_uri}, {"type": "input_text", "text": "What is this?"}]
    return [{"role": "user", "content": parts}]


def test_responses_answer_about_a_picture(server: Server, red_square_uri: str) -> None:
    """One message of one text, and what it has cost."""
    asked = {"input": _content(red_square_uri), "max_output_tokens": 24, "temperature": 0, "model": "tgi"}
    body = server.post("/v1/responses", asked).json()
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "tgi")
    [message] = body["output"]
    [part] = message["content"]
    assert (message["type"], message["role"], part["type"], part["text"]) == (
        "message",
        "assistant",
        "output_text",
        ANSWER,
    )
    assert body["usage"]["input_tokens"] == 48
    assert body["usage"]["total_tokens"] == 48 + body["usage"]["output_tokens"]


def test_responses_stream_named_events(server: Server, red_square_uri: str) -> None:
    """Numbered, from `response.created` to `response.completed`; the deltas are the text."""
    asked = {"input": _content(red_square_uri), "max_output_tokens": 24, "temperature": 0, "stream": True}
    reply = server.post("/v1/responses", asked)
    frames = [frame.split("\n") for frame in reply.text.split("\n\n") if frame.startswith("event:")]
    found = [json.loads(data.removeprefix("data:")) for _, data in frames]
    assert [name.removeprefix("event:").strip() for name, _ in frames] == [event["type"] for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert (found[0]["type"], found[-1]["type"]) == ("response.created", "response.completed")
    deltas = [event["delta"] for event in found if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == ANSWER


def test_responses_call_functions(server: Server) -> None:
    """A call is an item, and what it brought is one of the next request."""
    asked = {"input": "x", "tools": [TOOL], "tool_choice": "required", "max_output_tokens": 100, "temperature": 0}
    [call] = server.post("/v1/responses", asked).json()["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "report", "completed")
    assert json.loads(call["arguments"]).keys() == {"shape"}
    brought = {"type": "function_call_output", "call_id": call["call_id"], "output": "a square"}
    following = {"input": [{"role": "user", "content": "x"}, call, brought], "tools": [TOOL], "max_output_tokens": 8}
    reply = server.post("/v1/responses", following)
    assert reply.status_code == 200, reply.text


def test_responses_follow_a_schema(server: Server, red_square_uri: str) -> None:
    """`text.format`, flat as OpenAI has it there."""
    form = {"type": "json_schema", "name": "picture", "schema": SCHEMA, "strict": True}
    asked = {"input": _content(red_square_uri), "text": {"format": form}, "max_output_tokens": 50}
    [message] = server.post("/v1/responses", asked).json()["output"]
    assert json.loads(message["content"][0]["text"])["shape"] in ("circle", "square")


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
def test_responses_refuse_what_would_have_to_be_stored(server: Server, field: str) -> None:
    """By name."""
    body = {"input": "x", field: True if field == "background" else "resp_1"}
    mentions(refusal(server.post("/v1/responses", body), 422), field)


# --- Watermark -------------------------------------------------------------------------------------------------------


def test_keep_watermark_marks_the_text(server: Server) -> None:
    """Another text than without, the same every time, alone and streamed."""
    asked = {"max_new_tokens": 60, "ignore_eos": True}
    plain = generate(server, "x", **asked)["generated_text"]
    marked = generate(server, "x", **asked, watermark=True)["generated_text"]
    assert marked != plain == generate(server, "x", **asked, watermark=False)["generated_text"]
    body = {"inputs": "x", "parameters": {**asked, "watermark": True}}
    assert events(server, "/generate_stream", body)[-1]["generated_text"] == marked


# --- Detail of pictures ----------------------------------------------------------------------------------------------


def test_detail_is_a_budget_of_pixels(tiling: Server) -> None:
    """`low` takes fewer tokens where the family allows it; `high`, `auto` and nothing are the model's own."""
    picture = data_uri(png(drawing("square", "red", "white", (400, 300))))

    def tokens(**detail: str) -> int:
        part = {"type": "image_url", "image_url": {"url": picture, **detail}}
        details = chat(tiling, [part, text_part("x")], max_tokens=1)["usage"]["prompt_tokens_details"]
        return int(details["image_tokens"])

    assert 0 < tokens(detail="low") < tokens(detail="high") == tokens(detail="auto") == tokens()


def test_detail_of_a_family_with_one_size_changes_nothing(server: Server, red_square_uri: str) -> None:
    """And another word is refused by name."""
    for detail in ("low", "high", "auto"):
        part = {"type": "image_url", "image_url": {"url": red_square_uri, "detail": detail}}
        body = chat(server, [part, text_part("What is this?")], max_tokens=24)
        assert body["choices"][0]["message"]["content"] == ANSWER
    wrong = image_part(red_square_uri)
    wrong["image_url"]["detail"] = "sharp"
    body = {"messages": [{"role": "user", "content": [wrong]}]}
    mentions(refusal(server.post("/v1/chat/completions", body), 422), "detail")


# --- Traces ----------------------------------------------------------------------------------------------------------


def test_keep_traceparent_names_the_trace_in_the_log(server: Server) -> None:
    """The trace that a caller began goes on here."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    assert server.post("/generate", body, headers=headers).status_code == 200
    wait_until(lambda: trace in server.log.read_text(errors="replace"), 5, "the trace id in the log")
