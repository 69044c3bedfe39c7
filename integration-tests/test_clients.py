"""Python clients other than huggingface_hub: openai and text-generation, as their users call them."""

import openai
import pytest
import text_generation
from harness.calls import image_part, text_part
from harness.embedded import IMAGE_TOKENS
from harness.launched import Server
from harness.pictures import markdown
from harness.types import Client, Json
from text_generation.errors import ValidationError

QUESTION = "What is this a picture of?\n\n"


@pytest.fixture(scope="module")
def openai_client(server: Server) -> Client:
    """As an application makes it."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)


@pytest.fixture
def question(red_square_uri: str) -> Json:
    """Arguments of one chat call about a picture."""
    content = [image_part(red_square_uri), text_part("What is this?")]
    return {"model": "tgi", "messages": [{"role": "user", "content": content}], "max_tokens": 24, "temperature": 0}


def test_openai_whole(openai_client: Client, question: Json) -> None:
    reply = openai_client.chat.completions.create(**question)
    assert "red square" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details.image_tokens == IMAGE_TOKENS


def test_openai_stream_equals_whole(openai_client: Client, question: Json) -> None:
    whole = openai_client.chat.completions.create(**question)
    chunks = list(openai_client.chat.completions.create(**question, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_openai_stream_with_usage(openai_client: Client, question: Json) -> None:
    whole = openai_client.chat.completions.create(**question)
    options = {"include_usage": True}
    *chunks, last = openai_client.chat.completions.create(**question, stream=True, stream_options=options)
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks)


def test_openai_refusal_names_the_reason(openai_client: Client, question: Json) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        openai_client.chat.completions.create(**{**question, "temperature": -1})


def test_openai_models(openai_client: Client) -> None:
    models = list(openai_client.models.list())
    assert len(models) == 1
    assert models[0].owned_by == models[0].id


def test_text_generation_whole(server: Server, red_square_uri: str) -> None:
    reply = text_generation.Client(server.url).generate(markdown(red_square_uri) + QUESTION, max_new_tokens=16)
    assert "square" in reply.generated_text
    assert reply.details.generated_tokens == len(reply.details.tokens)
    assert reply.details.prefill == []


def test_text_generation_stream(server: Server, red_square_uri: str) -> None:
    client, prompt = text_generation.Client(server.url), markdown(red_square_uri) + QUESTION
    events = list(client.generate_stream(prompt, max_new_tokens=16))
    assert events[-1].generated_text == client.generate(prompt, max_new_tokens=16).generated_text
    assert events[-1].details.generated_tokens == len(events)


def test_text_generation_refusal(server: Server) -> None:
    with pytest.raises(ValidationError, match="1 to 16384|image|file"):
        text_generation.Client(server.url).generate(markdown("file:///etc/passwd"), max_new_tokens=4)
