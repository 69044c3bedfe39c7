"""The contract, "keep exactly": what clients of TGI see today and go on seeing, a test for each clause.

Other tests go deeper; these say at one glance that every promise is kept.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from harness import launched
from harness.calls import Background, OpenStream, answer, endless, events, generate, metrics, user_turn
from harness.embedded import ANSWER
from harness.javascript import Node
from harness.launched import Server, wait_until
from harness.picture_host import PictureHost
from harness.pictures import markdown
from harness.refusals import refusal
from harness.types import Client, Json
from huggingface_hub import InferenceClient

QUESTION = "What is this a picture of?\n\n"
JSON_TOKENS = 100
PAGE_SCHEMA: Json = {
    "properties": {
        "location": {"type": "string"},
        "activity": {"type": "string"},
        "animals_seen": {"type": "integer", "minimum": 1, "maximum": 5},
        "animals": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["location", "activity", "animals_seen", "animals"],
}
METRICS = """
    tgi_request_count tgi_request_success tgi_request_failure tgi_request_duration tgi_request_validation_duration
    tgi_request_queue_duration tgi_request_inference_duration tgi_request_mean_time_per_token_duration
    tgi_request_generated_tokens tgi_request_input_length tgi_request_max_new_tokens tgi_request_skipped_tokens
    tgi_batch_inference_count tgi_batch_inference_success tgi_batch_inference_failure tgi_batch_inference_duration
    tgi_batch_forward_duration tgi_batch_decode_duration tgi_batch_filter_duration tgi_batch_concat_duration
    tgi_batch_concat tgi_batch_next_size tgi_batch_current_size tgi_batch_current_max_tokens tgi_queue_size
    tgi_batch_max_total_tokens tgi_batch_total_tokens
"""
FLAGS = """
    model-id revision validation-workers sharded num-shard quantize speculate dtype kv-cache-dtype trust-remote-code
    max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens max-input-tokens max-input-length
    max-total-tokens waiting-served-ratio max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens
    max-batch-size cuda-graphs hostname port prometheus-port shard-uds-path master-addr master-port
    huggingface-hub-cache weights-cache-override disable-custom-kernels cuda-memory-fraction rope-scaling rope-factor
    json-output otlp-endpoint otlp-service-name cors-allow-origin api-key watermark-gamma watermark-delta ngrok
    ngrok-authtoken ngrok-edge tokenizer-config-path disable-grammar-support env max-client-batch-size lora-adapters
    usage-stats payload-limit enable-prefill-logprobs graceful-termination-timeout
"""
INFO = """
    model_id model_sha model_pipeline_tag max_concurrent_requests max_best_of max_stop_sequences max_input_tokens
    max_total_tokens validation_workers max_client_batch_size router version sha docker_label
"""
TIMINGS = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")


@pytest.fixture(scope="module")
def inputs(red_square_uri: str) -> str:
    """A prompt with a picture, whose answer ends by itself within 16 tokens."""
    return markdown(red_square_uri) + QUESTION


@pytest.fixture(params=["url", "base64"])
def page_prompt(request: pytest.FixtureRequest, host: PictureHost, red_square: bytes, inputs: str) -> str:
    """The page's prompt, its picture given by either kind of address."""
    return inputs if request.param == "base64" else markdown(host.serve("keep.png", red_square)) + QUESTION


# --- The page on vision-language models ------------------------------------------------------------------------------


def test_page_hub_client_streams_text_of_a_picture(server: Server, page_prompt: str) -> None:
    """`text_generation(prompt, max_new_tokens=16, stream=True)`, the picture an address or base64."""
    client = InferenceClient(server.url)
    pieces = list(client.text_generation(page_prompt, max_new_tokens=16, stream=True))
    assert len(pieces) > 1
    assert "".join(pieces).removesuffix("<|im_end|>") == ANSWER


def test_page_hub_client_gets_details_of_a_picture(server: Server, page_prompt: str) -> None:
    """`details=True` brings the tokens, their number and why they ended."""
    client: Client = InferenceClient(server.url)
    output = client.text_generation(page_prompt, max_new_tokens=16, details=True)
    assert output.generated_text == ANSWER
    assert output.details.finish_reason == "eos_token"
    assert output.details.generated_tokens == len(output.details.tokens)


def test_page_curl_streams_as_it_is_generated(server: Server, inputs: str) -> None:
    """`curl -N …/generate_stream` prints an event for each token."""
    body = json.dumps({"inputs": inputs, "parameters": {"max_new_tokens": 16, "seed": 42}})
    command = [shutil.which("curl") or "curl", "-sN", "--noproxy", "*", f"{server.url}/generate_stream"]
    command += ["-X", "POST", "-d", body, "-H", "Content-Type: application/json"]
    printed = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout.decode()
    assert printed.count("data:") == printed.count("\n\n") > 1
    assert json.loads(printed.strip().split("data:")[-1])["generated_text"] == ANSWER


@pytest.mark.parametrize("version", ["2", "4"])
def test_page_javascript_client_streams_tokens(node: Node, server: Server, red_square_uri: str, version: str) -> None:
    """`textGenerationStream` of `@huggingface/inference`, as `HfInferenceEndpoint` and as `InferenceClient`."""
    printed = node.run("client.mjs", f"{version}-stream", server.url, red_square_uri)
    assert "".join(event["token"]["text"] for event in printed if not event["token"]["special"]) == ANSWER


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_page_json_grammar_describes_a_picture(server: Server, page_prompt: str, kind: str) -> None:
    """The page's schema: activity, animals, 1 to 5 animals seen, location, all there, nothing else said."""
    client: Client = InferenceClient(server.url)
    options = {"max_new_tokens": JSON_TOKENS, "grammar": {"type": "json", "value": PAGE_SCHEMA}}
    text = client.text_generation(page_prompt, stream=kind == "stream", **options)
    value = json.loads(text if kind == "whole" else "".join(text).removesuffix("<|im_end|>"))
    assert value.keys() == {"activity", "animals", "animals_seen", "location"}
    assert [type(value[name]) for name in ("activity", "animals", "animals_seen", "location")] == [str, list, int, str]
    assert all(isinstance(animal, str) for animal in value["animals"])
    assert 1 <= value["animals_seen"] <= 5


@pytest.mark.parametrize("num_tokens", [60, 100, 250])
def test_page_json_is_whole_every_time(server: Server, page_prompt: str, num_tokens: int) -> None:
    """However the model would go on, and however few tokens there are: JSON ends in time."""
    for seed in range(8):
        grammar = {"type": "json", "value": PAGE_SCHEMA}
        parameters = {
            "max_new_tokens": num_tokens,
            "grammar": grammar,
            "do_sample": True,
            "seed": seed,
            "temperature": 2.0,
        }
        reply = server.post("/generate", {"inputs": page_prompt, "parameters": parameters})
        assert json.loads(reply.json()["generated_text"]).keys() == {"activity", "animals", "animals_seen", "location"}


# --- Shapes of routes ------------------------------------------------------------------------------------------------


def test_root_answers_a_list_of_one_and_streams_when_asked(server: Server, inputs: str) -> None:
    """`POST /` is `/generate` in a list, or `/generate_stream` with `stream`."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 16}}
    assert server.post("/", body).json() == [{"generated_text": ANSWER}]
    streamed = server.post("/", {**body, "stream": True})
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.content == server.post("/generate_stream", body).content


def test_generate_answers_an_object_with_details_when_asked(server: Server, inputs: str) -> None:
    """`generated_text` alone, or beside `details` with their keys."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 16}}
    assert server.post("/generate", body).json() == {"generated_text": ANSWER}
    details = generate(server, inputs, max_new_tokens=16, top_n_tokens=1)["details"]
    assert details.keys() == {"finish_reason", "generated_tokens", "seed", "prefill", "tokens", "top_tokens"}
    assert {frozenset(token) for token in details["tokens"]} == {frozenset(("id", "text", "logprob", "special"))}
    assert details["top_tokens"] == [[token] for token in details["tokens"]]


def test_generate_stream_answers_an_event_a_token(server: Server, inputs: str) -> None:
    """The events' tokens are those of the whole answer."""
    found = events(server, "/generate_stream", {"inputs": inputs, "parameters": {"max_new_tokens": 16}})
    assert tuple(event["token"]["id"] for event in found) == answer(server, inputs, max_new_tokens=16).token_ids


def test_tokenize_answers_ids_texts_and_byte_spans(server: Server) -> None:
    """A list of `id`, `text`, `start`, `stop`; spans cut their text out of the input."""
    text = "What is this? Größe"
    tokens = server.post("/tokenize", {"inputs": text}).json()
    assert {"id", "text", "start", "stop"} <= tokens[0].keys()
    assert [token["text"].encode() for token in tokens] == [text.encode()[t["start"] : t["stop"]] for t in tokens]
    assert (tokens[0]["start"], tokens[-1]["stop"]) == (0, len(text.encode()))


def test_info_has_every_field(server: Server) -> None:
    """All that TGI says of model and limits, by TGI's names."""
    info = server.get("/info").json()
    assert [name for name in INFO.split() if name not in info] == []
    assert info["router"] == "text-generation-router"
    assert info["max_input_tokens"] < info["max_total_tokens"]


@pytest.mark.parametrize("path", ["/health", "/ping", "/"])
def test_health_is_an_empty_200(server: Server, path: str) -> None:
    """Nothing but the status."""
    reply = server.get(path)
    assert (reply.status_code, reply.content) == (200, b"")


def test_metrics_keep_every_name(server: Server, inputs: str) -> None:
    """Every `tgi_*` name of TGI is declared, in the text format of Prometheus."""
    generate(server, inputs, max_new_tokens=2)
    text = server.get("/metrics").text
    declared = set(re.findall(r"^# TYPE (\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    assert [name for name in METRICS.split() if name not in declared] == []
    assert metrics(server)["tgi_request_success"] >= 1


# --- Streams ---------------------------------------------------------------------------------------------------------


def test_events_are_data_json_and_a_blank_line(server: Server, inputs: str) -> None:
    """Byte for byte, and no `[DONE]` on TGI's routes."""
    data = server.post("/generate_stream", {"inputs": inputs, "parameters": {"max_new_tokens": 4}}).content
    assert re.fullmatch(rb"(data: ?\{[^\n]*\}\n\n){4}", data)


def test_index_counts_from_one(server: Server, inputs: str) -> None:
    """The first event is number 1."""
    found = events(server, "/generate_stream", {"inputs": inputs, "parameters": {"max_new_tokens": 4}})
    assert [event["index"] for event in found] == [1, 2, 3, 4]


def test_the_end_token_is_the_last_event(server: Server, inputs: str) -> None:
    """It is streamed as a special token, and left out of the text."""
    *_, last = events(server, "/generate_stream", {"inputs": inputs, "parameters": {"max_new_tokens": 24}})
    assert (last["token"]["text"], last["token"]["special"]) == ("<|im_end|>", True)
    assert last["generated_text"] == ANSWER


def test_text_and_details_are_keys_of_every_event(server: Server, inputs: str) -> None:
    """Null until the last, and details only when asked for."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 3, "details": True}}
    *first, last = events(server, "/generate_stream", body)
    assert [(event["generated_text"], event["details"]) for event in first] == [(None, None)] * 2
    assert last["generated_text"] == "This is a"
    assert last["details"].keys() == {"finish_reason", "generated_tokens", "seed", "input_length"}


def test_timings_are_headers(server: Server, inputs: str) -> None:
    """`x-*` of whole answers: milliseconds, tokens and characters; streams have what is known before them."""
    body = {"inputs": inputs, "parameters": {"max_new_tokens": 3}}
    headers = server.post("/generate", body).headers
    assert all(headers[name].isdigit() for name in TIMINGS)
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("53", "3")
    assert int(headers["x-compute-characters"]) == len(inputs)
    assert float(headers["x-compute-time"]) > 0
    streamed = server.post("/generate_stream", body).headers
    assert {"x-compute-type", "x-compute-characters", "x-accel-buffering"} <= streamed.keys()


# --- Semantics -------------------------------------------------------------------------------------------------------


def test_a_stop_string_stays_in_the_text(server: Server, inputs: str) -> None:
    """On TGI's routes, as the last thing said."""
    body = generate(server, inputs, max_new_tokens=24, stop=["a picture"])
    assert body["generated_text"] == "This is a picture"
    assert body["details"]["finish_reason"] == "stop_sequence"


def test_absent_parameters_draw_and_present_ones_do_not(server: Server) -> None:
    """Without `parameters` tokens are drawn; an empty object makes the answer the most probable one."""
    drawn = {_first_token(server, {"inputs": "zq <|im_start|>"}) for _ in range(12)}
    greedy = {_first_token(server, {"inputs": "zq <|im_start|>", "parameters": {}}) for _ in range(3)}
    assert (len(greedy), len(drawn) > 1) == (1, True)


def _first_token(server: Server, body: Json) -> int:
    with OpenStream.open(server, "/generate_stream", body) as stream:
        return int(stream.take(1)[0]["token"]["id"])


def test_truncate_counts_from_the_left_of_the_expanded_prompt(server: Server, red_square_uri: str) -> None:
    """The last tokens stay, and a picture is as many tokens as it is for the model."""
    question = user_turn("What can you do?")
    kept = len(server.post("/tokenize", {"inputs": question}).json())
    end = answer(server, question, max_new_tokens=8)
    assert answer(server, "some words before " + question, max_new_tokens=8, truncate=kept) == end
    with_picture = user_turn(markdown(red_square_uri) + "What is this?")
    whole = len(server.post("/tokenize", {"inputs": with_picture}).json())
    after_picture = answer(server, "words before " + with_picture, max_new_tokens=16, truncate=whole)
    assert after_picture == answer(server, with_picture, max_new_tokens=16)


# --- Flags -----------------------------------------------------------------------------------------------------------


def test_every_flag_and_its_variable_is_known() -> None:
    """`--help` of a launcher of ours names each flag of TGI's, or it is taken without being shown."""
    command = [launched.launcher(), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    shown = set(re.findall(r"^\s+(?:-\w, )?--([a-z-]+)", text, re.MULTILINE))
    assert [flag for flag in FLAGS.split() if flag not in shown] == ["max-input-length"]
    variables = set(re.findall(r"\[env: (\w+)=?\]", text))
    assert [flag for flag in FLAGS.split() if flag in shown and flag.upper().replace("-", "_") not in variables] == [
        "env"
    ]


# --- Errors and silence ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """What clients see while a shard says nothing, and when it dies."""

    comment: str
    """The line that came instead of an event."""
    silence_s: float
    """Seconds until it came."""
    overloaded: requests.Response
    native: requests.Response
    chat: requests.Response
    last_event: Json
    health: requests.Response


@pytest.fixture(scope="module")
def loss(logs: Path) -> Iterator[Loss]:
    """A server with three places, all taken by long answers, whose shard stops and then dies."""
    with launched.running(logs / "loss.log", "--max-concurrent-requests", "3") as own:
        yield _lost(own)


def _lost(own: Server) -> Loss:
    long = {"inputs": "x", "parameters": endless(seed=3, max_new_tokens=1900)}
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1900, "temperature": 100, "seed": 4}
    replies = [Background(own.post, "/generate", long, 90), Background(own.post, "/v1/chat/completions", chat, 90)]
    with OpenStream.open(own, "/generate_stream", long) as stream:
        stream.take(1)
        wait_until(lambda: metrics(own)["tgi_batch_current_size"] == 3, 5, "three running requests")
        [shard] = own.shards()
        os.kill(shard, signal.SIGSTOP)
        overloaded = own.post("/generate", long, timeout=5)
        comment, silence_s = _first_comment(stream)
        os.kill(shard, signal.SIGKILL)
        wait_until(lambda: own.status("/health") == 503, 5, "red health", every=0.01)
        health = own.get("/health")
        *_, last = stream.events()
        native, chatted = (reply.result() for reply in replies)
    return Loss(comment, silence_s, overloaded, native, chatted, json.loads(last), health)


def _first_comment(stream: OpenStream) -> tuple[str, float]:
    """The first line that begins with a colon, and the seconds of silence before it."""
    last = time.monotonic()
    while line := stream.response.readline():
        if line.startswith(b":"):
            return line.decode(), time.monotonic() - last
        last = time.monotonic() if line.startswith(b"data:") else last
    raise AssertionError("the stream ended")


def test_a_comment_comes_after_15_s_of_silence(loss: Loss) -> None:
    """So that proxies keep a stream on which nothing comes."""
    assert loss.comment.strip() == ":"
    assert 14 < loss.silence_s < 18


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions"])
def test_error_422_is_a_validation_error(server: Server, path: str) -> None:
    """A value out of its bounds."""
    chat = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "temperature": -1}
    body = refusal(server.post(path, {"inputs": "x", "parameters": {"temperature": -1}, **chat}), 422)
    assert body["error_type"] == "validation"
    assert "temperature" in body["error"]


def test_error_424_is_a_failed_generation(loss: Loss) -> None:
    """The shard was lost while it answered."""
    assert refusal(loss.native, 424)["error_type"] == "generation"


def test_error_429_is_overload(loss: Loss) -> None:
    """All places are taken."""
    assert refusal(loss.overloaded, 429)["error_type"] == "overloaded"


def test_error_500_is_a_failed_generation_of_v1(loss: Loss) -> None:
    """OpenAI's clients know no 424."""
    assert refusal(loss.chat, 500)["error_type"] == "generation"


def test_error_503_is_bad_health(loss: Loss) -> None:
    """`/health` while the shard is gone."""
    assert refusal(loss.health, 503)["error_type"] == "healthcheck"


def test_error_in_a_stream_is_its_last_event(loss: Loss) -> None:
    """In the same form as the body of a refusal."""
    assert loss.last_event.keys() == {"error", "error_type"}
    assert loss.last_event["error_type"] == "generation"
