"""Shapes of the small routes and of headers: what probes, dashboards and clients read."""

import pytest
from harness.calls import chat, generate, metrics
from harness.embedded import IMAGE_TOKEN, IMAGE_TOKENS
from harness.launched import Server
from harness.pictures import markdown
from harness.types import Json

COUNTERS = [
    "tgi_request_count",
    "tgi_request_success",
    "tgi_request_failure",
    "tgi_batch_inference_count",
    "tgi_batch_inference_success",
    "tgi_batch_inference_failure",
    "tgi_batch_concat",
]
HISTOGRAMS = [
    "tgi_request_duration",
    "tgi_request_validation_duration",
    "tgi_request_queue_duration",
    "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration",
    "tgi_request_generated_tokens",
    "tgi_request_input_length",
    "tgi_request_max_new_tokens",
    "tgi_request_skipped_tokens",
    "tgi_batch_inference_duration",
    "tgi_batch_forward_duration",
    "tgi_batch_decode_duration",
    "tgi_batch_filter_duration",
    "tgi_batch_concat_duration",
    "tgi_batch_next_size",
]
GAUGES = [
    "tgi_batch_current_size",
    "tgi_batch_current_max_tokens",
    "tgi_queue_size",
    "tgi_batch_max_total_tokens",
    "tgi_batch_total_tokens",
]
TIMINGS = ["x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"]


def test_info(server: Server) -> None:
    info = server.get("/info").json()
    numbers = [
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "max_input_tokens",
        "max_total_tokens",
        "validation_workers",
        "max_client_batch_size",
    ]
    assert all(isinstance(info[name], int) and info[name] > 0 for name in numbers)
    assert (info["max_concurrent_requests"], info["max_best_of"], info["max_stop_sequences"]) == (128, 2, 4)
    assert info["max_input_tokens"] == info["max_total_tokens"] - 1
    assert info["router"] == "text-generation-router"
    assert info["model_pipeline_tag"] == "image-text-to-text"
    assert isinstance(info["model_id"], str)


def test_info_version_is_above_tgi(server: Server) -> None:
    version = tuple(int(part) for part in server.get("/info").json()["version"].split("-")[0].split("."))
    assert version >= (2, 1, 0)


def test_models(server: Server) -> None:
    model = server.get("/info").json()["model_id"]
    data = [{"id": model, "object": "model", "created": 0, "owned_by": model}]
    assert server.get("/v1/models").json() == {"object": "list", "data": data}


@pytest.mark.parametrize("path", ["/health", "/ping", "/live", "/ready", "/"])
def test_probes_answer_with_nothing(server: Server, path: str) -> None:
    reply = server.get(path)
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(("kind", "names"), [("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES)])
def test_every_metric_of_tgi_is_there(server: Server, red_square_uri: str, kind: str, names: list[str]) -> None:
    generate(server, markdown(red_square_uri), max_new_tokens=2)
    server.post("/generate", {"inputs": ""})
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    declared = {line for line in reply.text.splitlines() if line.startswith("# TYPE")}
    assert [name for name in names if f"# TYPE {name} {kind}" not in declared] == []


def _counted(server: Server, name: str) -> float:
    return sum(value for sample, value in metrics(server).items() if sample.split("{")[0] == name)


@pytest.mark.parametrize("name", ["tgi_request_count", "tgi_request_success", "tgi_request_duration_count"])
def test_a_request_is_counted_once(server: Server, name: str) -> None:
    before = _counted(server, name)
    chat(server, "Hello!", max_tokens=2)
    assert _counted(server, name) == before + 1


def test_a_refusal_is_counted_by_its_reason(server: Server) -> None:
    def failures() -> float:
        return metrics(server).get('tgi_request_failure{err="validation"}', 0)

    before = failures()
    server.post("/generate", {"inputs": ""})
    assert failures() == before + 1


def test_images_are_counted(server: Server) -> None:
    assert [name for name in metrics(server) if name.startswith("tgi_image_")]


def test_paths_do_not_become_labels(server: Server) -> None:
    server.get("/no/such/route/4711")
    assert "4711" not in server.get("/metrics").text


def test_tokenize_text(server: Server) -> None:
    text = "What is this? Größe 🐇"
    tokens = server.post("/tokenize", {"inputs": text}).json()
    assert all({"id", "text", "start", "stop"} <= set(token) for token in tokens)
    data = text.encode()
    assert all(token["text"].encode() == data[token["start"] : token["stop"]] for token in tokens)
    # A character of several tokens belongs to each of them, so spans may repeat, but leave nothing out.
    starts = [token["start"] for token in tokens]
    assert starts == sorted(starts)
    assert all(start <= before["stop"] for start, before in zip(starts[1:], tokens, strict=False))
    assert (starts[0], tokens[-1]["stop"]) == (0, len(data))


def test_tokenize_image(server: Server, red_square_uri: str) -> None:
    tokens = server.post("/tokenize", {"inputs": f"{markdown(red_square_uri)}What?"}).json()
    assert [token["id"] for token in tokens[:IMAGE_TOKENS]] == [IMAGE_TOKEN] * IMAGE_TOKENS
    assert "".join(token["text"] for token in tokens[IMAGE_TOKENS:]) == "What?"


def test_timing_headers(server: Server, red_square_uri: str) -> None:
    inputs = markdown(red_square_uri) + "What is this?"
    reply = server.post("/generate", {"inputs": inputs, "parameters": {"max_new_tokens": 4}})
    headers = reply.headers
    assert all(headers[name].isdigit() for name in TIMINGS)
    assert float(headers["x-compute-time"]) > 0
    assert int(headers["x-compute-characters"]) == len(inputs)
    assert headers["x-compute-type"]
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("48", "4")


def test_stream_headers(server: Server) -> None:
    body = {"inputs": "What is this?", "parameters": {"max_new_tokens": 2}}
    headers = server.post("/generate_stream", body).headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-compute-characters"] == "13"
    assert "content-encoding" not in headers


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/chat/completions"])
def test_request_id(server: Server, path: str) -> None:
    message = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    body: Json = {"inputs": "x", "parameters": {"max_new_tokens": 1}, **message}
    assert server.post(path, body, headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [server.post(path, body).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]


def test_request_id_is_bounded(server: Server) -> None:
    headers = {"x-request-id": "x" * 5000}
    assert len(server.get("/info", headers=headers).headers.get("x-request-id", "")) <= 256


def test_server_timing(server: Server) -> None:
    reply = server.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1}})
    assert "dur=" in reply.headers["server-timing"]


def test_browsers_of_other_origins_may_not_read(server: Server) -> None:
    reply = server.get("/info", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/debug", "/debug/pprof", "/profile", "/reload", "/weights", "/v1/load_lora_adapter"])
def test_no_debug_routes(server: Server, path: str) -> None:
    assert server.status(path) == 404


def test_any_model_name_is_echoed(server: Server) -> None:
    reply = chat(server, "Hello!", max_tokens=1, model="anything/at-all")
    assert reply["model"] == "anything/at-all"
