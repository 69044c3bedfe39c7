"""Answers held to a grammar, through every route: the page on vision-language models asks for JSON from a picture."""

import json
import re
from typing import Any

import pytest
from harness import pictures
from harness.calls import image_part, text_part
from harness.launched import Server
from harness.types import Json, JsonValue

PAGE: Json = {
    "properties": {
        "activity": {"type": "string", "maxLength": 40},
        "animals": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
        "animals_seen": {"type": "integer", "minimum": 1, "maximum": 5},
        "location": {"type": "string", "maxLength": 40},
    },
    "required": ["activity", "animals", "animals_seen", "location"],
}
"""The page's schema, with bounds so that every answer ends."""
COLOURS = ["red", "green", "blue", "yellow", "black"]
SHAPES = ["square", "circle", "triangle"]
MAX_TOKENS = 400
PROMPT = "Describe the picture as JSON."
REGEX = r"(red|blue) [a-z]{3,8}"
LARK = 'start: "colour: " COLOUR\nCOLOUR: "red" | "green" | "blue"'


def check(text: str) -> None:
    """The answer is what the page's reader expects."""
    value = json.loads(text)
    assert value.keys() == {"activity", "animals", "animals_seen", "location"}
    assert isinstance(value["activity"], str)
    assert isinstance(value["location"], str)
    assert all(isinstance(animal, str) for animal in value["animals"])
    assert 1 <= value["animals_seen"] <= 5


def native(server: Server, image: str, grammar: JsonValue, **parameters: Any) -> str:
    """The text of `/generate`."""
    parameters = {"max_new_tokens": MAX_TOKENS, "grammar": grammar, **parameters}
    body = {"inputs": pictures.markdown(image) + PROMPT, "parameters": parameters}
    reply = server.post("/generate", body)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["generated_text"]
    return text


def chat(server: Server, image: str, response_format: JsonValue, **options: Any) -> Json:
    """A chat about a picture."""
    messages = [{"role": "user", "content": [image_part(image), text_part(PROMPT)]}]
    body = {"messages": messages, "max_tokens": MAX_TOKENS, "response_format": response_format, **options}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, reply.text
    answer: Json = reply.json()
    return answer


def content(answer: Json) -> str:
    """The text of the only choice."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_the_schema_as_the_page_has_it(server: Server, red_square_uri: str) -> None:
    exact = {
        "properties": {
            "location": {"title": "Location", "type": "string"},
            "activity": {"title": "Activity", "type": "string"},
            "animals_seen": {"maximum": 5, "minimum": 1, "title": "Animals Seen", "type": "integer"},
            "animals": {"items": {"type": "string"}, "title": "Animals", "type": "array"},
        },
        "required": ["location", "activity", "animals_seen", "animals"],
        "title": "Animals",
        "type": "object",
    }
    check(native(server, red_square_uri, {"type": "json", "value": exact}))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_json_from_a_picture_every_time(server: Server, colour: str, shape: str) -> None:
    image = pictures.data_uri(pictures.png(pictures.drawing(shape, colour, "white")))
    check(native(server, image, {"type": "json", "value": PAGE}))
    for seed in range(3):
        check(native(server, image, {"type": "json", "value": PAGE}, do_sample=True, temperature=1.5, seed=seed))


def test_streamed_equals_whole(server: Server, red_square_uri: str) -> None:
    parameters = {"max_new_tokens": MAX_TOKENS, "grammar": {"type": "json", "value": PAGE}}
    body = {"inputs": pictures.markdown(red_square_uri) + PROMPT, "parameters": parameters}
    lines = server.post("/generate_stream", body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
    assert events[-1]["generated_text"] == native(server, red_square_uri, {"type": "json", "value": PAGE})
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert (
        "".join(event["token"]["text"] for event in events if not event["token"]["special"])
        == events[-1]["generated_text"]
    )


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "picture", "schema": PAGE, "strict": True}},
        {"type": "json_schema", "value": {"name": "picture", "schema": PAGE}},
        {"type": "json_object", "value": PAGE},
        {"type": "json_object", "schema": PAGE},
        {"type": "json", "value": json.dumps(PAGE)},
    ],
    ids=["openai", "tgi", "huggingface_hub", "langchain", "string"],
)
def test_every_form_of_response_format(server: Server, red_square_uri: str, response_format: Json) -> None:
    answer = chat(server, red_square_uri, response_format, temperature=0)
    check(content(answer))
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_text_is_free(server: Server, red_square_uri: str) -> None:
    form = {"type": "json_object", "value": PAGE}
    free, plain, held = (
        content(chat(server, red_square_uri, wanted, temperature=0)) for wanted in ({"type": "text"}, None, form)
    )
    assert free == plain != held


def test_looking_at_log_probabilities_changes_no_token(server: Server, red_square_uri: str) -> None:
    form = {"type": "json_object", "value": PAGE}
    plain = chat(server, red_square_uri, form, temperature=0)
    seen = chat(server, red_square_uri, form, temperature=0, logprobs=True, top_logprobs=2)
    assert content(seen) == content(plain)
    assert seen["usage"] == plain["usage"] | {"prompt_tokens_details": seen["usage"]["prompt_tokens_details"]}


def test_a_seeded_answer_is_the_same_in_company(server: Server, red_square_uri: str) -> None:
    form = {"type": "json_object", "value": PAGE}
    alone = content(chat(server, red_square_uri, form, seed=5, temperature=1.2))
    both = chat(server, red_square_uri, form, seed=5, temperature=1.2, n=2)
    assert both["choices"][0]["message"]["content"] == alone


def test_what_lists_properties_is_an_object(server: Server, red_square_uri: str) -> None:
    """Though the schema does not say so, JSON Schema would let a string pass, and a string is what is wanted most."""
    [quote] = server.post("/tokenize", {"prompt": '"', "add_special_tokens": False}).json()["tokens"]
    schema = {"properties": {"red": {"type": "boolean"}}, "required": ["red"]}
    form = {"type": "json_object", "value": schema}
    answer = chat(server, red_square_uri, form, temperature=0, logit_bias={str(quote): 100})
    assert json.loads(content(answer)).keys() == {"red"}


@pytest.mark.parametrize("route", ["native", "chat"])
def test_regex_and_lark(server: Server, red_square_uri: str, route: str) -> None:
    def text(form: Json) -> str:
        if route == "native":
            return native(server, red_square_uri, form)
        return content(chat(server, red_square_uri, form, temperature=0))

    assert re.fullmatch(REGEX, text({"type": "regex", "value": REGEX}))
    assert re.fullmatch("colour: (red|green|blue)", text({"type": "lark", "value": LARK}))


def test_completions_take_grammars_too(server: Server, red_square_uri: str) -> None:
    body = {"prompt": pictures.markdown(red_square_uri) + PROMPT, "max_tokens": MAX_TOKENS, "temperature": 0}
    reply = server.post("/v1/completions", {**body, "grammar": {"type": "json", "value": PAGE}})
    assert reply.status_code == 200, reply.text
    check(reply.json()["choices"][0]["text"])


@pytest.mark.parametrize(
    ("grammar", "field"),
    [
        ({"type": "regex", "value": "("}, "grammar"),
        ({"type": "json", "value": {"type": "nothing"}}, "grammar"),
        ({"type": "json", "value": {"$ref": "#/nowhere"}}, "grammar"),
        ({"type": "lark", "value": "start: missing"}, "grammar"),
        ({"type": "cobol", "value": "x"}, "grammar.type"),
        ({"type": "regex", "value": "(a{4000}){4000}"}, "grammar"),
    ],
    ids=["regex", "type", "reference", "rule", "kind", "costly"],
)
def test_a_bad_grammar_is_refused_by_name(server: Server, grammar: Json, field: str) -> None:
    reply = server.post("/generate", {"inputs": "x", "parameters": {"grammar": grammar}}, timeout=5)
    assert reply.status_code == 422
    assert reply.json()["error_type"] == "validation"
    assert field in reply.json()["error"]
