"""docs/api.md says all there is and nothing else: routes, fields, errors, flags; and its examples are run."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import api_tables
import pytest
from harness import launched
from harness.clients import settings
from harness.launched import Server
from harness.types import Json, JsonValue

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
SNIPPET = re.compile(r"^<!-- run: ([^\n]+) -->\n```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROUTE = re.compile(r"^\| `(GET|POST) (/\S*)`", re.MULTILINE)
ADDRESS = "http://127.0.0.1:3000"
# Pages are for people: the document does not describe them.
PAGES = {("get", "/docs")}
# Paths that are said beside the routes.
SAID = {"/v1", "/docs"}


class Snippet(NamedTuple):
    """A command, and words of what it prints."""

    shown: str
    code: str


SNIPPETS = [Snippet(*found) for found in SNIPPET.findall(PAGE)]


@pytest.fixture(scope="module")
def document(server: Server) -> Json:
    """The document as it is served."""
    body: Json = server.get("/api-doc/openapi.json").json()
    return body


def _section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_route_is_on_the_page_and_no_other(document: Json) -> None:
    served = {(method, path) for path, methods in document["paths"].items() for method in methods}
    named = {(method.lower(), path) for method, path in ROUTE.findall(_section("Routes"))}
    assert named - PAGES == served
    spoken = set(re.findall(r"`(?:GET |POST )?(/[a-z_0-9/{}.-]*)`", PAGE))
    assert spoken - {path for _, path in served} <= SAID


def test_every_table_is_what_the_document_says(document: Json) -> None:
    assert api_tables.named(PAGE) == api_tables.objects(document)
    assert api_tables.rewritten(PAGE, document) == PAGE, "run tools/api_tables.py with the address of a server"


def test_every_field_of_a_request_is_on_the_page(document: Json) -> None:
    bodies = [
        method["requestBody"]
        for methods in document["paths"].values()
        for method in methods.values()
        if "requestBody" in method
    ]
    fields = set().union(*(_fields(document, body, set()) for body in bodies))
    assert {"inputs", "messages", "prompt", "url", "temperature"} <= fields
    assert {name for name in fields if f"`{name}`" not in PAGE} == set()


def _fields(document: Json, value: JsonValue, seen: set[str]) -> set[str]:
    """Names of properties in a schema and in all that it refers to."""
    if isinstance(value, list):
        return set().union(*(_fields(document, item, seen) for item in value))
    if not isinstance(value, dict):
        return set()
    found = set(value.get("properties", {}))
    reference = value.get("$ref", "").rsplit("/", 1)[-1]
    if reference and reference not in seen:
        seen.add(reference)
        found |= _fields(document, document["components"]["schemas"][reference], seen)
    described = (inner for key, inner in value.items() if key not in ("example", "examples"))
    return found.union(*(_fields(document, inner, seen) for inner in described))


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) - anchors == set()
    files = re.findall(r"\]\((\w[\w.-]*\.md)\)", PAGE)
    assert [name for name in files if not (ROOT / "docs" / name).exists()] == []


def test_every_error_is_on_the_page() -> None:
    source = (ROOT / "router" / "src" / "api" / "error.rs").read_text()
    kinds = set(re.findall(r'row\(\s*StatusCode::\w+,\s*"([^"]+)"', source))
    named = set(re.findall(r"^\| \d{3} \| `([^`]+)`", _section("Errors"), re.MULTILINE))
    assert len(kinds) > 15
    assert named == kinds


def test_flags_and_their_defaults_are_those_of_the_launcher() -> None:
    command = [launched.launcher(), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    shown = re.split(r"^\s+(?:-\w, )?--(?=[a-z])", text, flags=re.MULTILINE)[1:]
    defaults = {
        f"--{block.split()[0]}": found[1] if (found := re.search(r"\[default: ([\w.]+)\]", block)) else None
        for block in shown
    }
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) - set(defaults) == set()
    rows = re.findall(r"^\| .* \| `(--[a-z-]+)` \| (\d+) \|$", _section("Limits and their flags"), re.MULTILINE)
    assert len(rows) > 10
    assert [(flag, value) for flag, value in rows if defaults[flag] != value] == []


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) > 5
    assert PAGE.count("```") == 2 * len(SNIPPETS)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.shown)
def test_snippet(snippet: Snippet, server: Server, red_square: bytes, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(red_square)
    code = snippet.code.replace(ADDRESS, server.url)
    environment = {**settings(), "API_KEY": "any: this server wants none"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail"],
        input=code,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert snippet.shown in done.stdout
