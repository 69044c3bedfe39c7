"""The checklist that clients set: what they were seen to send and to rely on, a test for each point.

The clients themselves run in `test_client_matrix.py`; here is what all of them have in common.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from harness import launched
from harness.calls import OpenStream, chat, endless, events, generate, image_part, metrics, text_part, wait_idle
from harness.embedded import ANSWER, MAX_POSITIONS
from harness.launched import Server, wait_until
from harness.pictures import markdown
from harness.refusals import refusal
from harness.types import Json

ORIGIN = "https://app.example"
HELLO: Json = {"messages": [{"role": "user", "content": "x"}]}
SCHEMA: Json = {"type": "object", "properties": {"count": {"enum": [2]}}, "required": ["count"]}
TOOL: Json = {"type": "function", "function": {"name": "report", "parameters": SCHEMA}}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "report", "arguments": '{"count": 2}'}}
GETS = ["/", "/info", "/health", "/ping", "/metrics", "/v1/models", "/api-doc/openapi.json"]
POSTS = """/ /generate /generate_stream /tokenize /chat_tokenize /v1/chat/completions /v1/completions"""
NULLS = """best_of temperature repetition_penalty frequency_penalty top_k top_p typical_p do_sample
    return_full_text stop truncate watermark details decoder_input_details seed top_n_tokens grammar adapter_id"""
CHAT_NULLS = """model frequency_penalty presence_penalty logit_bias logprobs top_logprobs n seed stop stream
    stream_options top_p tools tool_choice tool_prompt response_format user parallel_tool_calls max_completion_tokens"""
OPENAI_DEFAULTS: Json = {
    "top_p": 1,
    "temperature": 0,
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "stop": "no such words",
    "logit_bias": {},
    "max_completion_tokens": 24,
    "user": "me",
    "stream": False,
    "parallel_tool_calls": True,
}


@pytest.fixture(scope="module")
def inputs(red_square_uri: str) -> str:
    """A prompt with a picture, whose answer is known."""
    return markdown(red_square_uri) + "What is this a picture of?\n\n"


@pytest.fixture(scope="module")
def seen(red_square_uri: str) -> list[Json]:
    """The content of a chat message with a picture."""
    return [image_part(red_square_uri), text_part("What is this?")]


@pytest.fixture(scope="module")
def open_to_pages(logs: Path) -> Iterator[Server]:
    """A server that pages of one origin may call."""
    with launched.running(logs / "origin.log", "--cors-allow-origin", ORIGIN) as server:
        yield server


def _said(body: Json) -> str:
    return str(body["choices"][0]["message"]["content"])


def _merged(body: Json) -> Json:
    """A short request that every POST route takes."""
    return {"inputs": "x", "prompt": "x", "parameters": {"max_new_tokens": 1}, "max_tokens": 1, **HELLO, **body}


# --- Must ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GETS)
def test_must_1_routes_that_are_read(server: Server, path: str) -> None:
    """Probes, facts and the reference answer 200."""
    assert server.status(path) == 200


@pytest.mark.parametrize("path", POSTS.split())
def test_must_1_routes_that_are_posted_to(server: Server, path: str) -> None:
    """Each takes the body that its clients send."""
    body = _merged({})
    reply = server.post(path, {key: body[key] for key in body if key != "prompt" or path == "/v1/completions"})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", POSTS.split())
def test_must_2_unknown_fields_are_ignored(server: Server, path: str) -> None:
    """Beside the known ones, in parameters, in messages and in their parts."""
    part = {**text_part("x"), "cache_control": {"type": "ephemeral"}}
    message = {"role": "user", "content": [part], "refusal": None, "audio": None, "weight": 1}
    strange = {"options": {"wait": True}, "parameters": {"max_new_tokens": 1, "max_time": 1}, "messages": [message]}
    body = _merged({**strange, "service_tier": "auto", "store": False})
    reply = server.post(path, {key: body[key] for key in body if key != "prompt" or path == "/v1/completions"})
    assert reply.status_code == 200, reply.text


def test_must_2_null_is_absent(server: Server, inputs: str, seen: list[Json]) -> None:
    """For every parameter of TGI's and of OpenAI's."""
    nulls: Json = dict.fromkeys(NULLS.split())
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 16, **nulls}, "stream": None}
    assert server.post("/generate", body).json() == {"generated_text": ANSWER}
    assert _said(chat(server, seen, max_tokens=24, **dict.fromkeys(CHAT_NULLS.split()))) == ANSWER
    asked = {"prompt": inputs, "max_tokens": 16, "temperature": 0, **nulls, "suffix": None, "echo": None}
    assert server.post("/v1/completions", {**asked, "temperature": 0}).json()["choices"][0]["text"] == ANSWER


def test_must_3_the_root_answers_a_list_without_the_prompt(server: Server, inputs: str) -> None:
    """One element; a prompt with a picture is not repeated; `stream` streams."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 16}}
    assert server.post("/", body).json() == [{"generated_text": ANSWER}]
    assert events(server, "/", {**body, "stream": True})[-1]["generated_text"] == ANSWER


def test_must_4_native_streams_are_lines_that_come_one_by_one(server: Server, inputs: str) -> None:
    """One `data:` line and a blank one, no `[DONE]`, never compressed, each sent when it is there."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 4}}
    reply = server.post("/generate_stream", body, headers={"accept-encoding": "gzip, deflate, zstd"})
    assert "content-encoding" not in reply.headers
    assert re.fullmatch(rb"(data: ?\{[^\n]*\}\n\n){4}", reply.content)
    with OpenStream.generate(server, "x", **endless(seed=7, max_new_tokens=1500)) as stream:
        stream.take(2)
        assert metrics(server)["tgi_batch_current_size"] >= 1, "all came at once, at the end"
        stream.leave()


@pytest.mark.parametrize("kind", ["object", "string"])
def test_must_5_chats_take_pictures_as_objects_and_as_strings(server: Server, red_square_uri: str, kind: str) -> None:
    """`image_url: {url}`, and the bare address that some documentation has."""
    picture = image_part(red_square_uri) if kind == "object" else {"type": "image_url", "image_url": red_square_uri}
    assert _said(chat(server, [picture, text_part("What is this?")], max_tokens=24)) == ANSWER


def test_must_5_chats_take_every_role(server: Server, seen: list[Json]) -> None:
    """Texts as strings or parts, a system's words, calls without content, and what a tool brought."""
    messages: list[Json] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": seen},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "two"},
        {"role": "user", "content": [text_part("How many?")]},
    ]
    body = {"messages": messages, "max_tokens": 8, "tools": [TOOL], "model": "any/thing"}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == "any/thing"
    text = server.post("/chat_tokenize", body).json()["templated_text"]
    assert all(words in text for words in ("Be brief.", "report", "two", "How many?"))


FORMS: dict[str, Json] = {
    "openai": {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA, "strict": True}},
    "hub": {"type": "json_object", "value": SCHEMA},
    "tgi-json": {"type": "json", "value": SCHEMA},
    "tgi-json_schema": {"type": "json_schema", "value": {"name": "count", "schema": SCHEMA}},
    "langchain": {"type": "json_object", "schema": SCHEMA},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_must_5_every_sender_of_a_schema_is_understood(server: Server, seen: list[Json], form: Json) -> None:
    """The same wish in five forms."""
    assert json.loads(_said(chat(server, seen, max_tokens=50, response_format=form))) == {"count": 2}


def test_must_5_expressions_and_json_mode_are_understood(server: Server, seen: list[Json]) -> None:
    """TGI's `regex`, and OpenAI's `json_object` without a schema."""
    form = {"type": "regex", "value": "[0-9]{3}"}
    assert re.fullmatch("[0-9]{3}", _said(chat(server, seen, response_format=form)))
    assert _said(chat(server, seen, max_tokens=50, response_format={"type": "json_object"})).startswith("{")


def test_must_6_openai_defaults_are_accepted(server: Server, seen: list[Json], inputs: str) -> None:
    """`top_p: 1`, `temperature: 0`, `stop` as a string, `logit_bias` as a map, `max_completion_tokens`."""
    assert _said(chat(server, seen, **OPENAI_DEFAULTS)) == ANSWER
    body = {"prompt": [inputs], "max_tokens": 24, **OPENAI_DEFAULTS}
    assert server.post("/v1/completions", body).json()["choices"][0]["text"] == ANSWER


def test_must_7_chat_streams_end_as_openai_ends_them(server: Server, seen: list[Json]) -> None:
    """`data: [DONE]` byte for byte, a string in every delta, one finish reason, usage only when asked."""
    body = {"messages": [{"role": "user", "content": seen}], "temperature": 0, "max_tokens": 24, "stream": True}
    assert server.post("/v1/chat/completions", body).content.endswith(b"}\n\ndata: [DONE]\n\n")
    chunks = events(server, "/v1/chat/completions", body)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len(choices) == len(chunks)
    assert all(isinstance(choice["delta"]["content"], str) for choice in choices)
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert not any(chunk.get("usage") for chunk in chunks)
    asked = events(server, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    assert (asked[-1]["choices"], asked[-1]["usage"]["prompt_tokens"]) == ([], 48)


NAMED = {"type": "function", "function": {"name": "report"}}


@pytest.mark.parametrize("choice", ["required", "report", NAMED], ids=["required", "bare", "named"])
def test_must_8_a_call_can_be_required(server: Server, choice: object) -> None:
    """By word, by TGI's bare name, and by OpenAI's object; arguments are JSON text."""
    answer = chat(server, "x", tools=[TOOL], tool_choice=choice, max_tokens=100)["choices"][0]
    [call] = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "report"
    assert isinstance(call["function"]["arguments"], str)
    assert json.loads(call["function"]["arguments"])["count"] == 2


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_must_8_a_call_can_be_left_to_the_model_or_forbidden(server: Server, choice: str) -> None:
    """This model calls nothing by itself."""
    answer = chat(server, "x", tools=[TOOL], tool_choice=choice, max_tokens=24)["choices"][0]
    assert answer["finish_reason"] in ("stop", "length")
    assert answer["message"]["content"]
    assert "tool_calls" not in answer["message"]


BAD: dict[str, Json] = {
    "parameter": {"inputs": "x", "parameters": {"top_p": 7}},
    "empty": {"inputs": ""},
    "too long": {"inputs": "x " * 3000, "parameters": {}},
    "picture": {"inputs": markdown("data:image/png;base64,AAAA")},
    "no picture": {"inputs": markdown("file:///etc/passwd")},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_must_9_bad_requests_are_validation_errors(server: Server, body: Json) -> None:
    """422 with `validation`, streamed or not; no client repeats that."""
    for path in ("/", "/generate", "/generate_stream"):
        assert refusal(server.post(path, body), 422)["error_type"] == "validation"


def test_must_9_a_body_that_is_too_large_is_a_413_that_curl_shows(server: Server, tmp_path: Path) -> None:
    """Enough of it is read that the reason arrives instead of a broken pipe."""
    (tmp_path / "body.json").write_bytes(b'{"inputs": "' + b"x" * 40_000_000 + b'"}')
    command = [shutil.which("curl") or "curl", "-sS", "--noproxy", "*", f"{server.url}/generate"]
    command += ["-H", "Content-Type: application/json", "--data-binary", f"@{tmp_path / 'body.json'}"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert json.loads(done.stdout)["error_type"] == "payload_too_large", done.stderr


def test_must_10_the_version_lets_old_clients_call_functions(server: Server) -> None:
    """At least 2.1.0, and above TGI's last."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", server.get("/info").json()["version"])
    assert numbers
    assert tuple(map(int, numbers.groups())) > (3, 3, 99)


def test_must_11_gauges_return_to_zero_after_clients_leave(server: Server) -> None:
    """Whoever leaves in the middle leaves nothing behind."""
    streams = [OpenStream.generate(server, "x", **endless(seed=seed, max_new_tokens=1500)) for seed in (1, 2)]
    for stream in streams:
        stream.take(1)
    wait_until(lambda: metrics(server)["tgi_batch_current_size"] == 2, 5, "two running requests")
    assert 0 < metrics(server)["tgi_batch_current_max_tokens"] < metrics(server)["tgi_batch_max_total_tokens"]
    for stream in streams:
        stream.leave()
    wait_idle(server)
    assert metrics(server)["tgi_batch_current_max_tokens"] == 0


# --- Should ----------------------------------------------------------------------------------------------------------


def test_should_have_tokens_on_completion_chunks(server: Server, inputs: str) -> None:
    """The loops of JavaScript programs read `token.text`; `details` come last."""
    body = {"prompt": inputs, "max_tokens": 16, "temperature": 0, "stream": True, "details": True}
    chunks = events(server, "/v1/completions", body)
    assert "".join(chunk["token"]["text"] for chunk in chunks if not chunk["token"]["special"]) == ANSWER
    assert chunks[-1]["details"]["finish_reason"] == "eos_token"


def test_should_take_parameters_of_tgi_on_completions(server: Server, inputs: str) -> None:
    """`grammar`, `top_k`, `do_sample`, `truncate`, `typical_p`."""
    asked = {"prompt": inputs, "max_tokens": 50, "do_sample": False, "top_k": 5, "typical_p": 0.9, "truncate": 100}
    body = {**asked, "grammar": {"type": "json", "value": SCHEMA}}
    assert json.loads(server.post("/v1/completions", body).json()["choices"][0]["text"]) == {"count": 2}


def test_should_take_the_root_at_v1(server: Server, inputs: str) -> None:
    """Where a client lands whose base address ends so."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 16}}
    assert server.post("/v1", body).json() == [{"generated_text": ANSWER}]


@pytest.mark.parametrize("encoded", [False, True], ids=["raw", "encoded"])
def test_should_know_a_model_by_its_id(server: Server, encoded: bool) -> None:
    """Its slash raw, as old libraries write it, or encoded."""
    name = server.get("/info").json()["model_id"]
    assert "/" in name
    path = quote(name, safe="") if encoded else name
    assert server.get(f"/v1/models/{path}").json() == {"id": name, "object": "model", "created": 0, "owned_by": name}
    assert server.status("/v1/models/another") == 404


def test_should_answer_openai_libraries_with_error_objects(server: Server) -> None:
    """With the field as `param`."""
    headers = {"x-stainless-lang": "python"}
    body = server.post("/v1/completions", {"prompt": "x", "temperature": -1}, headers=headers).json()
    assert body["error"]["param"] == "temperature"
    assert "temperature" in body["error"]["message"]


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/completions"])
def test_should_ignore_the_end_for_benchmarks(server: Server, inputs: str, path: str) -> None:
    """`ignore_eos` makes answers as long as was asked for."""
    parameters = {"max_new_tokens": 40, "ignore_eos": True}
    body = {"inputs": inputs, "prompt": inputs, **HELLO, "parameters": parameters, "max_tokens": 40, "ignore_eos": True}
    assert server.post(path, {**body, "temperature": 0}).headers["x-generated-tokens"] == "40"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_should_give_n_answers(server: Server, path: str) -> None:
    """Each its own, in order."""
    body = {**HELLO, "prompt": "x", "max_tokens": 8, "n": 2, "temperature": 5, "seed": 1}
    first, second = server.post(path, body).json()["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first.get("message", first.get("text")) != second.get("message", second.get("text"))


def test_should_answer_preflights(server: Server, open_to_pages: Server) -> None:
    """For the origins of the flag, with whatever headers a library sends; by default for none."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}

    def preflight(target: Server, origin: str) -> requests.Response:
        return target.send("OPTIONS", "/v1/chat/completions", headers={"origin": origin, **asked})

    allowed = preflight(open_to_pages, ORIGIN).headers
    assert allowed["access-control-allow-origin"] == ORIGIN
    assert "x-stainless-os" in allowed["access-control-allow-headers"]
    assert "POST" in allowed["access-control-allow-methods"]
    for target, origin in ((open_to_pages, "https://other.example"), (server, ORIGIN)):
        assert "access-control-allow-origin" not in preflight(target, origin).headers


@pytest.mark.parametrize("path", ["/", "/generate", "/v1/chat/completions", "/v1/completions"])
def test_should_say_timings_in_headers(server: Server, path: str) -> None:
    """TGI's names, on the routes that have them there."""
    headers = server.post(path, _merged({})).headers
    names = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token", "prompt-tokens")
    assert all(headers[f"x-{name}"].isdigit() for name in names)


def test_should_serve_evaluation_tools(server: Server) -> None:
    """`/tokenizer_info`, and `/tokenize` with vLLM's body and answer, for texts and for chats."""
    assert server.get("/tokenizer_info").json()["eos_token"] == "<|im_end|>"
    text = server.post("/tokenize", {"prompt": "What is this?"}).json()
    assert text["count"] == len(text["tokens"])
    assert text["max_model_len"] == MAX_POSITIONS
    assert server.post("/detokenize", {"tokens": text["tokens"]}).json()["prompt"] == "What is this?"
    ids = [token["id"] for token in server.post("/chat_tokenize", HELLO).json()["tokenize_response"]]
    assert server.post("/tokenize", HELLO).json()["tokens"] == ids
    assert generate(server, "What is this?", max_new_tokens=1)["details"]["generated_tokens"] == 1
