"""The contract, "do better": where TGI's behaviour is a mistake and ours is not, a test for each row.

Other tests go deeper; these say at one glance that every promise is kept.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from harness import launched, pictures, text_model
from harness.calls import OpenStream, chat, endless, events, generate, image_part, metrics, text_part, user_turn
from harness.embedded import ANSWER, IMAGE_TOKEN, IMAGE_TOKENS, NO_END
from harness.goldens import Goldens, PictureCase, picture_cases
from harness.launched import Server, wait_until
from harness.picture_host import PictureHost
from harness.pictures import markdown
from harness.processes import connected_tcp, descendants
from harness.refusals import mentions, refusal
from harness.types import Json

KEY = "Correct-Horse"
WITH_KEY = {"authorization": f"Bearer {KEY}"}
PAYLOAD_LIMIT = 100_000
GENERATING = ("/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions")
HELLO: Json = {"messages": [{"role": "user", "content": "x"}]}
COUNT: Json = {
    "type": "object",
    "properties": {"count": {"$ref": "#/$defs/two"}},
    "required": ["count"],
    "additionalProperties": False,
    "$defs": {"two": {"enum": [2]}},
}
TOOL: Json = {"type": "function", "function": {"name": "report", "parameters": COUNT}}


@pytest.fixture(scope="module")
def inputs(red_square_uri: str) -> str:
    """A prompt with a picture, whose answer is known."""
    return markdown(red_square_uri) + "What is this a picture of?\n\n"


@pytest.fixture(scope="module")
def seen(red_square_uri: str) -> list[Json]:
    """The content of a chat message with a picture."""
    return [image_part(red_square_uri), text_part("What is this?")]


@pytest.fixture(scope="module")
def strict(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two places, a key, small limits, and no way out."""
    key_file = tmp_path_factory.mktemp("key") / "key"
    key_file.write_text(f"{KEY}\n")
    flags = ["--api-key-file", str(key_file), "--max-concurrent-requests", "2", "--payload-limit", str(PAYLOAD_LIMIT)]
    flags += ["--disable-image-fetch", "--max-images-per-request", "1", "--max-image-pixels", "40000"]
    with launched.running(logs / "strict.log", *flags) as server:
        yield server


@pytest.fixture(scope="module")
def blind(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model without vision."""
    folder = tmp_path_factory.mktemp("blind")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_CACHE_HOME", str(folder / "cache"))
        flags = ("--model-id", str(text_model.build(folder / "model")), "--dtype", "float32")
        with launched.running(logs / "blind.log", *flags) as server:
            yield server


def _said(body: Json) -> str:
    return str(body["choices"][0]["message"]["content"])


def _tokens(server: Server, text: str) -> list[int]:
    tokens: list[int] = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
    return tokens


def _merged(body: Json) -> Json:
    """A body that every generating route takes."""
    return {"inputs": "x", "prompt": "x", **HELLO, **body}


# --- Bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GENERATING)
def test_wrong_bodies_are_json_errors_that_name_the_field(server: Server, path: str) -> None:
    """400 for what is no JSON, 422 with the field for wrong types, 415 for another media type."""
    as_json = {"content-type": "application/json"}
    mentions(refusal(server.send("POST", path, data=b'{"inputs": ', headers=as_json), 400), "json")
    mentions(
        refusal(server.send("POST", path, data=b"{}", headers={"content-type": "text/plain"}), 415), "content-type"
    )
    wrong = _merged({"parameters": {"temperature": "hot"}, "temperature": "hot"})
    mentions(refusal(server.post(path, wrong), 422), "temperature")


def test_bodies_may_have_32_mib_or_what_the_flag_says(server: Server, strict: Server, red_square_uri: str) -> None:
    """TGI takes 2 MB, so that larger pictures do not fit."""
    body = {"inputs": markdown(red_square_uri), "parameters": {"max_new_tokens": 1}, "filler": "x" * 30_000_000}
    assert server.post("/generate", body).status_code == 200
    assert server.get("/info").json()["payload_limit"] == 32 * 1024 * 1024
    over = {"inputs": "x", "filler": "x" * PAYLOAD_LIMIT}
    mentions(refusal(strict.post("/generate", over, headers=WITH_KEY), 413), str(PAYLOAD_LIMIT))


# --- Pictures --------------------------------------------------------------------------------------------------------


def test_markdown_pictures_are_for_inputs_only(server: Server, host: PictureHost, red_square: bytes) -> None:
    """Alternative text and balanced parentheses work there; in the text of a chat the same is text."""
    address = host.serve("better_(1).png", red_square)
    prompt = f"![a (red) square]({address})What is this a picture of?\n\n"
    assert generate(server, prompt, max_new_tokens=16)["generated_text"] == ANSWER
    asked = len(host.requests_for("better_(1).png"))
    usage = chat(server, prompt, max_tokens=1)["usage"]
    assert (usage["prompt_tokens_details"]["image_tokens"], len(host.requests_for("better_(1).png"))) == (0, asked)


def test_parts_reach_the_template_as_parts(server: Server, red_square_uri: str) -> None:
    """This template writes pictures first, wherever they stand; a string is the same as one text."""

    def templated(content: object) -> str:
        reply = server.post("/chat_tokenize", {"messages": [{"role": "user", "content": content}]})
        return str(reply.json()["templated_text"])

    assert templated([text_part("What?"), image_part(red_square_uri)]) == user_turn("<image>What?")
    assert templated("What?") == templated([text_part("What?")]) == user_turn("What?")


@pytest.mark.parametrize("text", ["<image>", "a<image>b <image><image>"])
def test_user_text_is_never_an_image_token(server: Server, text: str) -> None:
    """What looks like one is characters, in prompts and in chats."""
    tokens = server.post("/tokenize", {"inputs": text}).json()
    assert IMAGE_TOKEN not in [token["id"] for token in tokens]
    assert "".join(token["text"] for token in tokens) == text
    tokens = server.post("/chat_tokenize", {"messages": [{"role": "user", "content": text}]}).json()
    assert IMAGE_TOKEN not in [token["id"] for token in tokens["tokenize_response"]]


def test_a_model_without_vision_refuses_pictures(blind: Server, inputs: str, seen: list[Json]) -> None:
    """422 on either kind of route, and texts are answered."""
    for path in ("/generate", "/generate_stream", "/v1/chat/completions"):
        body = {"inputs": inputs, "messages": [{"role": "user", "content": seen}]}
        mentions(refusal(blind.post(path, body), 422), "this model takes no images")
    assert generate(blind, "x", max_new_tokens=2)["details"]["generated_tokens"] == 2


def test_pictures_have_limits(server: Server, strict: Server, red_square_uri: str) -> None:
    """Their number and their pixels, by default and by flag."""
    many = {"inputs": markdown(red_square_uri) * 17}
    mentions(refusal(server.post("/generate", many), 422), "17", "16")
    twice = {"inputs": markdown(red_square_uri) * 2}
    mentions(refusal(strict.post("/generate", twice, headers=WITH_KEY), 422), "2", "1")
    large = pictures.data_uri(pictures.png(pictures.drawing("square", "red", "white", (300, 300))))
    mentions(refusal(strict.post("/generate", {"inputs": markdown(large)}, headers=WITH_KEY), 422), "300x300", "40000")


def test_addresses_have_a_policy(server: Server, strict: Server, private_host: PictureHost, red_square: bytes) -> None:
    """Nobody of a private network is asked unless a flag names it, and nobody at all by another flag."""
    private = private_host.serve("better.png", red_square)
    refusal(server.post("/generate", {"inputs": markdown(private)}), 422)
    refusal(strict.post("/generate", {"inputs": markdown(private)}, headers=WITH_KEY), 422)
    assert private_host.requests_for("better.png") == []


def test_truncate_through_a_picture_is_refused_with_the_numbers(server: Server, inputs: str) -> None:
    """And nobody beside it is harmed."""
    body = refusal(server.post("/generate", {"inputs": inputs, "parameters": {"truncate": 20}}), 422)
    mentions(body, "truncate", "20", "image 1")


@pytest.mark.parametrize("case", picture_cases()[::17], ids=lambda case: case.name)
def test_token_counts_are_those_of_the_model(server: Server, goldens: Goldens, case: PictureCase) -> None:
    """One number everywhere: the one that `transformers` has for this picture and question."""
    golden = goldens.pictures[case.name]
    usage = chat(server, [image_part(case.url), text_part(golden["question"])], max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == golden["prompt_tokens"]
    tokens = server.post("/tokenize", {"inputs": markdown(case.url)}).json()
    assert usage["prompt_tokens_details"]["image_tokens"] == len(tokens)
    body = {"inputs": markdown(case.url) + golden["question"], "parameters": {"max_new_tokens": 1, "details": True}}
    assert events(server, "/generate_stream", body)[0]["details"]["input_length"] == golden["prompt_tokens"]


# --- Fields ----------------------------------------------------------------------------------------------------------


def test_neutral_values_are_accepted(server: Server, inputs: str) -> None:
    """`top_p: 1`, `typical_p: 1`, `top_k: 0` and the like change nothing."""
    neutral = {"top_p": 1.0, "typical_p": 1.0, "top_k": 0, "temperature": 1.0, "frequency_penalty": 0.0, "best_of": 1}
    assert generate(server, inputs, max_new_tokens=16, **neutral) == generate(server, inputs, max_new_tokens=16)


def test_openai_fields_do_what_they_say(server: Server, seen: list[Json]) -> None:
    """An id, `stop` as a string, `logit_bias` as a map, `stream_options: null`, `n`."""
    [red] = _tokens(server, " red")
    body = chat(server, seen, max_tokens=24, stop=" red", stream_options=None, logit_bias={})
    assert body["id"].startswith("chatcmpl-")
    assert _said(body) == "This is a picture of a"
    assert " red" not in _said(chat(server, seen, max_tokens=24, logit_bias={str(red): -100}))
    both = chat(server, seen, max_tokens=4, n=2, temperature=2, seed=3)["choices"]
    assert [choice["index"] for choice in both] == [0, 1]


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": COUNT},
        {"type": "json_object", "value": COUNT},
        {"type": "json_schema", "json_schema": {"name": "count", "schema": COUNT, "strict": True}},
        {"type": "json_schema", "value": {"name": "count", "schema": COUNT}},
    ],
    ids=["langchain", "hub", "openai", "tgi"],
)
def test_openai_forms_of_response_format_are_followed(server: Server, seen: list[Json], form: Json) -> None:
    """Whoever wrote them, the schema is kept to."""
    assert json.loads(_said(chat(server, seen, response_format=form))) == {"count": 2}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 3}, "n"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
    ],
    ids=["n", "format", "bias"],
)
def test_what_cannot_be_done_is_refused_by_name(server: Server, fields: Json, named: str) -> None:
    """A 4xx that says so."""
    mentions(refusal(server.post("/v1/chat/completions", {**HELLO, **fields}), 422), named)


def test_penalties_are_those_of_openai(server: Server) -> None:
    """`frequency_penalty` counts, `presence_penalty` does not, and the prompt is no part of either."""
    [red] = _tokens(server, " red")
    forced = {"max_tokens": 30, "ignore_eos": True, "logit_bias": {str(red): 30}}

    def run(text: str, **penalty: float) -> int:
        said = _said(chat(server, text, **forced, **penalty))
        return (len(said) - len(said.replace(" red", "", 30))) // len(" red")

    assert run("x") == run("x", presence_penalty=2) == run("x", presence_penalty=0) == 30
    assert 5 < run("x", frequency_penalty=2) < 30
    assert run(" red" * 40, frequency_penalty=2) > 5, "the prompt's 40 were counted"


def test_finish_reasons_are_those_of_openai(server: Server, seen: list[Json]) -> None:
    """`stop` for an end and for a stop string, `length`, `tool_calls`."""
    asked: list[tuple[str, Json]] = [
        ("stop", {"max_tokens": 24}),
        ("stop", {"max_tokens": 24, "stop": [" red"]}),
        ("length", {"max_tokens": 2}),
        ("tool_calls", {"max_tokens": 100, "tools": [TOOL], "tool_choice": "required"}),
    ]
    for reason, fields in asked:
        assert chat(server, seen, **fields)["choices"][0]["finish_reason"] == reason
        body = {"messages": [{"role": "user", "content": seen}], "temperature": 0, "stream": True, **fields}
        streamed = [chunk["choices"][0]["finish_reason"] for chunk in events(server, "/v1/chat/completions", body)]
        assert [given for given in streamed if given] == [reason]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_stop_strings_are_cut_and_never_streamed(server: Server, seen: list[Json], inputs: str, path: str) -> None:
    """Also one of several tokens, of which the first come before it is known."""
    body = {"messages": [{"role": "user", "content": seen}], "prompt": inputs, "temperature": 0, "max_tokens": 24}
    stop = {"stop": ["picture of a r"]}
    [whole] = server.post(path, {**body, **stop}).json()["choices"]
    pieces = [chunk["choices"][0] for chunk in events(server, path, {**body, **stop, "stream": True})]
    texts = [piece["delta"]["content"] if "delta" in piece else piece["text"] for piece in pieces]
    assert "".join(texts) == (whole["message"]["content"] if "message" in whole else whole["text"]) == "This is a "


def test_logprobs_are_raw_on_v1_and_warped_on_tgi_routes(server: Server) -> None:
    """A high temperature flattens what TGI's routes show, and leaves what `/v1` shows as it is."""
    warm = {"temperature": 5.0, "seed": 1}
    likeliest = [
        chat(server, "x", max_tokens=1, logprobs=True, top_logprobs=1, **fields)["choices"][0]["logprobs"]["content"][0]
        for fields in ({}, warm)
    ]
    cold, hot = (entry["top_logprobs"][0] for entry in likeliest)
    assert cold == hot
    assert cold["logprob"] > -0.1
    top = generate(server, "x", max_new_tokens=1, top_n_tokens=1, **warm)["details"]["top_tokens"][0][0]
    assert (top["text"], top["logprob"] < -1) == (cold["token"], True)


# --- Tools -----------------------------------------------------------------------------------------------------------


def test_tools_are_called_in_one_run(server: Server) -> None:
    """In the model's own format, held to the function's schema with its `$defs`; several calls, each with an id."""
    before = metrics(server)["tgi_request_count"]
    fields = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 150, "logit_bias": NO_END}
    calls = chat(server, "x", **fields)["choices"][0]["message"]["tool_calls"]
    assert metrics(server)["tgi_request_count"] == before + 1
    assert len({call["id"] for call in calls}) == len(calls) > 1
    assert {call["function"]["name"] for call in calls} == {"report"}
    assert json.loads(calls[0]["function"]["arguments"]) == {"count": 2}
    alone = chat(server, "x", **fields, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]
    assert len(alone) == 1


def test_tool_arguments_are_streamed(server: Server) -> None:
    """Name and id first, then the arguments in pieces; free choice constrains nothing."""
    body = {**HELLO, "temperature": 0, "stream": True, "tools": [TOOL], "max_tokens": 100}
    chunks = events(server, "/v1/chat/completions", {**body, "tool_choice": "report"})
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or []]
    assert deltas[0]["id"]
    assert deltas[0]["function"]["name"] == "report"
    assert len(deltas) > 2
    assert json.loads("".join(delta["function"]["arguments"] for delta in deltas)) == {"count": 2}
    free = events(server, "/v1/chat/completions", {**body, "tool_choice": "auto"})
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in free)


def test_arguments_reach_the_template_as_an_object(server: Server) -> None:
    """Not as JSON inside a string; neither are schemas."""
    text = server.post("/chat_tokenize", {**HELLO, "tools": [TOOL]}).json()["templated_text"]
    assert '"parameters":{"type":"object"' in text.replace(": ", ":")


# --- Models, streams, errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tgi", "dummy", "http://127.0.0.1:3000", None])
def test_any_model_is_accepted_and_echoed(server: Server, model: str | None) -> None:
    """It names no adapter by accident."""
    expected = model or server.get("/info").json()["model_id"]
    assert chat(server, "x", max_tokens=1, model=model)["model"] == expected


@pytest.mark.parametrize("path", GENERATING)
def test_an_adapter_that_is_not_loaded_is_a_404(server: Server, path: str) -> None:
    """It is asked for by `adapter_id`."""
    body = _merged({"parameters": {"adapter_id": "none"}, "adapter_id": "none"})
    mentions(refusal(server.post(path, body), 404), "adapter_id")


@pytest.mark.parametrize("path", ["/", "/generate_stream", "/v1/chat/completions", "/v1/completions"])
def test_a_refused_stream_has_a_status(server: Server, path: str) -> None:
    """Not a 200 with an event that says otherwise."""
    bad = _merged({"parameters": {"temperature": -1}, "temperature": -1, "stream": True})
    refusal(server.post(path, bad), 422)


@pytest.mark.parametrize("headers", [{"x-stainless-lang": "js"}, {"user-agent": "ai-sdk/openai-compatible/1.0"}])
def test_errors_have_the_form_that_the_client_reads(server: Server, headers: dict[str, str]) -> None:
    """OpenAI's on `/v1` for its libraries and Vercel's; TGI's for all others and on all other routes."""
    bad = _merged({"parameters": {"temperature": -1}, "temperature": -1})
    error = server.post("/v1/chat/completions", bad, headers=headers).json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "temperature", "validation")
    assert refusal(server.post("/v1/chat/completions", bad), 422)["error"] == error["message"]
    refusal(server.post("/generate", bad, headers=headers), 422)


@pytest.fixture
def _full(strict: Server) -> Iterator[None]:
    """Both places of the strict server are taken."""
    long = {"inputs": "x", "parameters": endless(seed=8, max_new_tokens=1800)}
    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(_opened(strict, long))
        yield
    wait_until(lambda: metrics(strict)["tgi_batch_current_size"] == 0, 5, "idle server")


def _opened(server: Server, body: Json) -> requests.Response:
    session = requests.Session()
    session.trust_env = False
    return session.post(f"{server.url}/generate_stream", json=body, headers=WITH_KEY, stream=True, timeout=60)


@pytest.mark.usefixtures("_full")
@pytest.mark.parametrize("path", GENERATING)
def test_overload_is_a_429_at_once(strict: Server, path: str) -> None:
    """With `Retry-After`, whatever the route, and never a 503."""
    start = time.monotonic()
    reply = strict.post(path, _merged({"stream": True}), headers=WITH_KEY)
    assert refusal(reply, 429)["error_type"] == "overloaded"
    assert int(reply.headers["retry-after"]) >= 1
    assert time.monotonic() - start < 1


@pytest.mark.usefixtures("_full")
def test_health_is_answered_while_the_server_is_full(strict: Server) -> None:
    """From a heartbeat, never behind requests; liveness and readiness apart from it."""
    start = time.monotonic()
    assert [strict.status(path) for path in ("/health", "/live", "/ready")] == [200, 200, 200]
    assert time.monotonic() - start < 1
    refusal(strict.post("/generate", {"inputs": ""}, headers=WITH_KEY), 422)
    assert strict.status("/health") == 200, "a bad request is no illness"


def test_invented_seeds_survive_javascript(server: Server) -> None:
    """They are below 2 to the 53rd, and bring the same again."""
    drawn = {"max_new_tokens": 6, "temperature": 3.0}
    bodies = [generate(server, "x", **drawn) for _ in range(4)]
    seeds = [body["details"]["seed"] for body in bodies]
    assert len(set(seeds)) == 4
    assert all(seed < 2**53 for seed in seeds)
    assert generate(server, "x", **drawn, seed=int(float(seeds[0]))) == bodies[0]


def test_the_root_is_empty_or_a_playground(server: Server) -> None:
    """By what the asker accepts."""
    assert server.get("/").content == b""
    page = server.get("/", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<title>Playground</title>" in page.text


def test_completions_take_and_give_what_tgi_does(server: Server, inputs: str) -> None:
    """TGI's parameters beside OpenAI's, `token` in each chunk, `details` in the last."""
    body = {"prompt": inputs, "max_tokens": 16, "stream": True, "details": True, "do_sample": False, "top_k": 1}
    chunks = events(server, "/v1/completions", body)
    whole = generate(server, inputs, max_new_tokens=16)["details"]
    assert [chunk["token"]["id"] for chunk in chunks] == [token["id"] for token in whole["tokens"]]
    assert chunks[-1]["details"]["generated_tokens"] == whole["generated_tokens"]
    grammar = {"type": "regex", "value": "[0-9]{3}"}
    reply = server.post("/v1/completions", {"prompt": "x", "grammar": grammar, "max_tokens": 8}).json()
    assert reply["choices"][0]["text"].isdigit()


def test_keys_are_exact_and_every_post_route_is_behind_them(server: Server, strict: Server) -> None:
    """Another case is another key; the key is in no log and on no command line."""
    routes = server.get("/api-doc/openapi.json").json()["paths"]
    posts = [path for path, methods in routes.items() if "post" in methods]
    assert {"/chat_tokenize", "/tokenize", *GENERATING} <= set(posts)
    for path in posts:
        for key in ({}, {"authorization": f"Bearer {KEY.lower()}"}):
            refusal(strict.post(path, _merged({}), headers=key), 401)
    assert strict.post("/tokenize", {"inputs": "x"}, headers=WITH_KEY).status_code == 200
    assert KEY.lower() not in strict.log.read_text().lower()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("json", {"type": "array", "items": {"const": "a"}, "minItems": 2, "maxItems": 2}, '["a","a"]'),
        ("json", {"anyOf": [{"type": "null"}, {"const": {"b": 1}}]}, None),
        ("regex", "(yes|no)!{3}", None),
        ("lark", 'start: "1" ("+" "2")~2', "1+2+2"),
    ],
    ids=["array", "any of", "regex", "lark"],
)
def test_grammars_need_no_properties(server: Server, kind: str, value: object, text: str | None) -> None:
    """JSON Schema beyond objects, regular expressions, and Lark."""
    body = generate(server, "x", max_new_tokens=40, grammar={"type": kind, "value": value})
    assert body["details"]["finish_reason"] == "eos_token"
    assert text is None or body["generated_text"].replace(" ", "") == text


def test_bad_grammars_are_refused_before_anything_is_done(server: Server, host: PictureHost) -> None:
    """422 within the limits of compiling, before a picture is asked for."""
    address, before = host.url("hang"), len(host.requests_for("hang"))
    for value in ("(", "(a{4000}){4000}"):
        body = {"inputs": markdown(address), "parameters": {"grammar": {"type": "regex", "value": value}}}
        mentions(refusal(server.post("/generate", body, timeout=3), 422), "grammar")
    assert len(host.requests_for("hang")) == before


def test_long_answers_go_on(server: Server, host: PictureHost, red_square: bytes) -> None:
    """Past 1024 tokens, and their picture is fetched once."""
    address = host.serve("long.png", red_square)
    long = endless(seed=2, max_new_tokens=1040)
    with OpenStream.generate(server, markdown(address), **long, ignore_eos=True) as stream:
        assert len(stream.take(1040)) == 1040
    assert len(host.requests_for("long.png")) == 1


def test_metrics_tell_pictures_caches_and_times(server: Server, inputs: str) -> None:
    """Beside TGI's: what pictures cost, what caches saved, when tokens came, how full memory is."""
    generate(server, inputs, max_new_tokens=3)
    names = {line.split()[2] for line in server.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    images = {"count", "bytes", "pixels", "tokens", "cache_hits", "embedding_hits"}
    images |= {f"{stage}_duration" for stage in ("fetch", "decode", "resize", "encode")}
    assert {f"tgi_image_{name}" for name in images} <= names
    others = {"prefix_cache_hit_tokens", "time_to_first_token_duration", "inter_token_duration", "kv_cache_usage"}
    assert {f"tgi_{name}" for name in others | {"preemptions"}} <= names


def test_nothing_is_ever_sent(server: Server, inputs: str) -> None:
    """After a request the server has no connection to anybody but those who called it."""
    generate(server, inputs, max_new_tokens=2)
    family = [server.process.pid, *descendants(server.process.pid)]
    assert {address for address in connected_tcp(family) if not address.startswith("7F", 6)} == set()


# --- Beside the table ------------------------------------------------------------------------------------------------


def test_usage_says_what_was_cached_and_what_was_picture(server: Server, seen: list[Json]) -> None:
    """`prompt_tokens_details`, the second time with what did not have to be computed."""
    content = [*seen, text_part(" once more" * 30)]
    first, second = (chat(server, content, max_tokens=1)["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["image_tokens"] == IMAGE_TOKENS
    assert 0 < second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"] == first["prompt_tokens"]


@pytest.mark.parametrize("path", [*GENERATING, "/tokenize", "/nowhere"])
def test_every_answer_has_a_request_id(server: Server, path: str) -> None:
    """The client's, or one of ours."""
    body = _merged({"parameters": {"max_new_tokens": 1}, "max_tokens": 1})
    assert server.post(path, body, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert server.post(path, body).headers["x-request-id"] not in ("", "mine-1")


def test_server_timing_has_the_stages(server: Server, inputs: str) -> None:
    """Where the time of a request with a picture went."""
    reply = server.post("/generate", {"inputs": inputs, "parameters": {"max_new_tokens": 1}})
    stages = [stage.split(";")[0].strip() for stage in reply.headers["server-timing"].split(",")]
    assert {"fetch", "decode", "resize", "validation", "queue", "inference", "total"} <= set(stages)


def test_tokenize_tells_text_from_picture(server: Server, inputs: str) -> None:
    """Each span has a type."""
    spans = server.post("/tokenize", {"inputs": inputs}).json()
    assert [span["type"] for span in spans] == ["image"] * IMAGE_TOKENS + ["text"] * (len(spans) - IMAGE_TOKENS)
    assert "".join(span["text"] for span in spans if span["type"] == "text") == "What is this a picture of?\n\n"


def test_the_reference_is_served(server: Server) -> None:
    """OpenAPI as JSON, Swagger UI as a page that needs nobody else."""
    document = server.get("/api-doc/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(GENERATING) <= document["paths"].keys()
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//unpkg" not in page.text
    assert "https://" not in page.text
