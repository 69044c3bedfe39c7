"""The OpenAPI document: valid, complete enough that its examples are served, and honest enough that a body drawn from
it is never the server's fault. Swagger UI shows it without asking anybody else."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness import browser
from harness.browser import Visit
from harness.launched import Server
from harness.types import Json, JsonValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from playwright.sync_api import expect

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "100"))
FIXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
METHODS = ("get", "post", "put", "delete", "patch")
NUMBERS = {"integer", "number"}
# Words that a schema can only describe, not list.
SAID_IN_WORDS = {
    "role": ["system", "user", "assistant"],
    "type": [
        *("text", "image_url", "function", "json", "json_object", "json_schema", "regex", "lark"),
        *("message", "input_text", "input_image", "output_text", "function_call", "function_call_output", "reasoning"),
    ],
}
# An answer of a whole context is a test of patience.
SHORT = {"max_new_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens"}


@pytest.fixture(scope="module")
def document(server: Server) -> Json:
    """The document as it is served."""
    reply = server.get("/api-doc/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    body: Json = reply.json()
    return body


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def _bodies(document: Json) -> dict[str, Json]:
    """What each route takes, by path."""
    return {
        path: operation["requestBody"]["content"]["application/json"]
        for _, path, operation in _operations(document)
        if "requestBody" in operation
    }


def _resolved(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def test_the_document_is_valid(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_field_is_described(document: Json) -> None:
    silent = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, inner in schema.get("properties", {}).items()
        if not _is_described(inner)
    ]
    assert silent == []


def _is_described(schema: Json) -> bool:
    # What may be null holds its description beside the type that it has otherwise.
    return "description" in schema or any(_is_described(one) for one in schema.get("oneOf", []))


def test_every_operation_is_described(document: Json) -> None:
    silent = [path for _, path, operation in _operations(document) if not operation.get("summary")]
    assert silent == []


def test_every_route_with_a_body_says_how_it_is_refused(document: Json) -> None:
    for method, path, operation in _operations(document):
        if method == "post":
            assert {"401", "422", "4XX"} <= set(operation["responses"]), path


def test_examples_are_served(document: Json, server: Server) -> None:
    tried = 0
    for path, content in _bodies(document).items():
        examples = [example["value"] for example in content.get("examples", {}).values()]
        examples += [content["example"]] if "example" in content else []
        assert examples, f"{path} has no example"
        for example in examples:
            reply = server.post(path, example)
            assert reply.status_code == 200, f"{path}: {reply.text}"
            tried += 1
    assert tried >= 8


def _drawn(document: Json, schema: Json, name: str = "") -> st.SearchStrategy[Any]:
    """Values of a schema, as far as this document uses schemas."""
    schema = _resolved(document, schema)
    if name in SAID_IN_WORDS:
        return st.sampled_from(SAID_IN_WORDS[name])
    if name in SHORT:
        return st.integers(1, 4)
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return st.one_of([_drawn(document, one, name) for one in schema[keyword]])
    if "allOf" in schema:
        return _drawn(document, schema["allOf"][0], name)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of([_of_kind(document, schema, kind) for kind in kinds])


def _of_kind(document: Json, schema: Json, kind: str) -> st.SearchStrategy[Any]:
    if kind in NUMBERS:
        return _number(schema, kind)
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(_drawn(document, schema.get("items", {})), min_size=least, max_size=max(least, 2))
    if kind == "object":
        return _object(document, schema)
    simple = {
        "null": st.none(),
        "boolean": st.booleans(),
        "string": st.text(min_size=schema.get("minLength", 0), max_size=20),
    }
    return simple[kind]


def _number(schema: Json, kind: str) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if kind == "integer":
        return st.integers(-(2**31) if least is None else least, 2**31 - 1 if most is None else most)
    exclusive = "exclusiveMinimum" in schema
    return st.floats(least, most, exclude_min=exclusive, allow_nan=False, allow_infinity=False, width=32)


def _object(document: Json, schema: Json) -> st.SearchStrategy[Any]:
    fields = {name: _drawn(document, inner, name) for name, inner in schema.get("properties", {}).items()}
    required = {name: fields.pop(name) for name in schema.get("required", []) if name in fields}
    return st.fixed_dictionaries(required, optional=fields)


def test_drawn_bodies_are_answered_or_refused(document: Json, server: Server) -> None:
    bodies = _bodies(document)
    strategies = {path: _drawn(document, content["schema"]) for path, content in bodies.items()}

    @given(data=st.data(), path=st.sampled_from(sorted(strategies)))
    @FIXED
    def drawn(data: st.DataObject, path: str) -> None:
        body: JsonValue = data.draw(strategies[path])
        reply = server.post(path, _short(path, body))
        assert 200 <= reply.status_code < 500, (
            f"{path}: {reply.status_code} {reply.text[:500]} {json.dumps(body)[:500]}"
        )
        if reply.status_code >= 400:
            assert set(reply.json()) == {"error", "error_type"}

    drawn()


def _short(path: str, body: Json) -> Json:
    """Without an answer that goes on to the end of the context."""
    if "instances" in body:
        return body | {"instances": [_short(path, instance) for instance in body["instances"]]}
    if "inputs" in body:
        return body | {"parameters": (body.get("parameters") or {}) | {"max_new_tokens": 2}}
    return body | {"max_tokens": 2, "max_completion_tokens": None, "max_output_tokens": 2}


def test_swagger_ui_shows_it(server: Server) -> None:
    with browser.browser() as chromium:
        one = Visit.start(chromium, server.url + "/docs")
        expect(one.page.get_by_text("/v1/chat/completions").first).to_be_visible()
        one.page.get_by_text("/generate", exact=True).first.click()
        expect(one.page.get_by_role("button", name="Execute")).to_be_visible()
        assert one.hosts() == {one.page.url.split("/")[2]}
        assert one.complaints == []
        one.close()


def test_the_folder_leads_to_the_page(server: Server) -> None:
    assert server.get("/docs/").url == f"{server.url}/docs"
