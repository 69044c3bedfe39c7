"""The page on vision-language models in TGI's documentation, example by example, with only the host name changed."""

import json
import shutil
import subprocess

import pytest
from harness.launched import Server
from harness.picture_host import PictureHost
from harness.pictures import markdown
from harness.types import Client
from huggingface_hub import InferenceClient

QUESTION = "What is this a picture of?\n\n"


@pytest.fixture
def client(server: Server) -> Client:
    """The page's client."""
    return InferenceClient(server.url)


@pytest.fixture(params=["url", "base64"])
def prompt(request: pytest.FixtureRequest, host: PictureHost, red_square: bytes, red_square_uri: str) -> str:
    """The page's prompt with its image given either way."""
    image = red_square_uri if request.param == "base64" else host.serve("rabbit.png", red_square)
    return f"{markdown(image)}{QUESTION}"


def test_python_whole(client: Client, prompt: str) -> None:
    text = client.text_generation(prompt, max_new_tokens=16)
    assert "square" in text


def test_python_stream(client: Client, prompt: str) -> None:
    tokens = list(client.text_generation(prompt, max_new_tokens=16, stream=True))
    assert "square" in "".join(tokens)
    assert 1 < len(tokens) <= 16


def test_python_details(client: Client, prompt: str) -> None:
    output = client.text_generation(prompt, max_new_tokens=16, details=True)
    assert output.details.generated_tokens == len(output.details.tokens) <= 16
    assert output.details.finish_reason in ("length", "eos_token")
    assert "".join(token.text for token in output.details.tokens if not token.special) == output.generated_text


def test_python_stream_details(client: Client, prompt: str) -> None:
    events = list(client.text_generation(prompt, max_new_tokens=16, stream=True, details=True))
    assert events[-1].generated_text is not None
    assert events[-1].details.generated_tokens == len(events)
    assert all(event.generated_text is None and event.details is None for event in events[:-1])


def test_python_url_and_base64_bring_the_same(
    client: Client, host: PictureHost, red_square: bytes, red_square_uri: str
) -> None:
    images = [host.serve("same.png", red_square), red_square_uri]
    by_url, inline = (client.text_generation(markdown(image) + QUESTION, max_new_tokens=16) for image in images)
    assert by_url == inline


def test_curl_stream(server: Server, red_square_uri: str) -> None:
    curl = shutil.which("curl")
    assert curl, "this test needs curl"
    parameters = {"max_new_tokens": 16, "seed": 42}
    body = json.dumps({"inputs": markdown(red_square_uri) + QUESTION, "parameters": parameters})
    command = [curl, "-sN", "--noproxy", "*", "-X", "POST", f"{server.url}/generate_stream"]
    command += ["-d", body, "-H", "Content-Type: application/json"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    events = [json.loads(line.removeprefix("data:")) for line in done.stdout.decode().splitlines() if line]
    assert "square" in events[-1]["generated_text"]


def test_python_chat_with_a_picture(client: Client, red_square_uri: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": red_square_uri}}, {"type": "text", "text": "What is this?"}]
    output = client.chat_completion([{"role": "user", "content": content}], max_tokens=24, temperature=0)
    assert "red square" in output.choices[0].message.content
