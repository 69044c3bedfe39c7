"""The playground in a real browser: with a mouse, with the keyboard alone, on a telephone, in both colour schemes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import browser, launched
from harness.browser import PHONE, Visit
from harness.calls import chat, image_part, text_part, wait_idle
from harness.embedded import IMAGE_TOKENS
from harness.javascript import Node
from harness.launched import Server
from harness.pictures import data_uri, drawing, png
from harness.types import Json
from playwright.sync_api import Browser, Locator, expect

QUESTION = "What is this a picture of?"
ANSWER = ".turn.assistant:last-of-type"
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["photo", "drawing"]}, "count": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["kind", "count"],
    "additionalProperties": False,
}
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests here."""
    with browser.browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Open]:
    """Opens the playground. Afterwards it must have asked nobody but its server, and complained about nothing."""
    opened: list[Visit] = []

    def open_page(url: str = server.url, **options: object) -> Visit:
        opened.append(Visit.start(chromium, url + "/", **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_page
    for one in opened:
        assert one.hosts() == {one.page.url.split("/")[2]}
        assert one.complaints == []
        one.close()


def _answer(one: Visit) -> Locator:
    """The last answer, complete."""
    answer = one.page.locator(ANSWER)
    expect(answer).not_to_have_attribute("aria-busy", "true", timeout=60_000)
    return answer


def _ask(one: Visit, question: str = QUESTION) -> Locator:
    one.page.get_by_label("Message", exact=True).fill(question)
    one.page.get_by_role("button", name="Send").click()
    return _answer(one)


def _set(one: Visit, **fields: str) -> None:
    for label, value in fields.items():
        one.page.get_by_label(label.replace("_", " "), exact=True).fill(value)


def _sent(one: Visit) -> Json:
    """The last chat request."""
    bodies = [request.post_data for request in one.requested if request.url.endswith("/v1/chat/completions")]
    assert bodies[-1] is not None
    body: Json = json.loads(bodies[-1])
    return body


def test_a_dropped_picture_is_answered_about(visit: Open, red_square: bytes) -> None:
    one = visit()
    expect(one.page.locator("#model")).to_have_text("text-generation-vlm/embedded")
    one.drop("square.png", red_square)
    expect(one.page.get_by_role("list", name="Pictures to send").get_by_role("img")).to_have_attribute(
        "alt", "square.png"
    )
    _set(one, Temperature="0", Max_tokens="24")
    answer = _ask(one)
    expect(answer.locator(".text")).to_contain_text("red square")
    expect(answer.locator(".measures")).to_contain_text(f"{IMAGE_TOKENS} image")
    expect(answer.locator(".measures")).to_contain_text("first token")
    expect(answer.locator(".measures")).to_contain_text("tokens/s")
    answer.get_by_text("Timings").click()
    for stage in ("decode", "resize", "queue", "inference", "first token", "whole answer"):
        expect(answer.get_by_role("rowheader", name=stage)).to_be_visible()


def test_the_conversation_goes_on(visit: Open, red_square: bytes) -> None:
    one = visit()
    one.paste("square.png", red_square)
    _set(one, System_message="Be brief.", Temperature="0", Top_p="0.5", Max_tokens="8", Seed="7")
    first = _ask(one).locator(".text").inner_text()
    _ask(one, "What color is the background?")
    body = _sent(one)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][1]["content"][0]["image_url"]["url"] == data_uri(red_square)
    assert body["messages"][2]["content"] == first
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0, 0.5, 8, 7)
    one.page.get_by_role("button", name="New chat").click()
    expect(one.page.locator(".turn")).to_have_count(0)
    _ask(one, "Hello!")
    assert [message["role"] for message in _sent(one)["messages"]] == ["system", "user"]


def test_several_pictures_and_one_taken_away(visit: Open, red_square: bytes, tmp_path: Path) -> None:
    one = visit()
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "notes.txt"]
    files[0].write_bytes(red_square)
    files[1].write_bytes(png(drawing("circle", "blue", "white")))
    files[2].write_text("no picture")
    with one.page.expect_file_chooser() as chooser:
        one.page.get_by_role("button", name="Add pictures").click()
    chooser.value.set_files(files)
    expect(one.page.get_by_role("alert")).to_contain_text("notes.txt")
    one.page.get_by_role("button", name="Remove a.png").click()
    _set(one, Max_tokens="2")
    _ask(one)
    content = _sent(one)["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[0]["image_url"]["url"] == data_uri(files[1].read_bytes())


def test_stop_ends_the_answer_on_both_sides(visit: Open, server: Server) -> None:
    one = visit()
    _set(one, Temperature="100", Max_tokens="1900")
    one.page.get_by_label("Message", exact=True).fill("Go on and on.")
    one.page.get_by_role("button", name="Send").click()
    expect(one.page.locator(ANSWER).locator(".text")).not_to_be_empty()
    one.page.get_by_role("button", name="Stop").click()
    expect(_answer(one)).to_contain_text("stopped")
    expect(one.page.get_by_role("button", name="Send")).to_be_visible()
    wait_idle(server)


def test_a_refusal_is_shown_and_the_message_kept(visit: Open) -> None:
    one = visit()
    one.drop("broken.png", b"\x89PNG\r\n\x1a\n and nothing more")
    answer = _ask(one)
    expect(answer.get_by_role("alert")).to_contain_text("422")
    expect(answer.get_by_role("alert")).to_contain_text("Input validation error")
    expect(one.page.get_by_label("Message", exact=True)).to_have_value(QUESTION)
    expect(one.page.get_by_role("button", name="Remove broken.png")).to_be_visible()
    one.page.get_by_role("button", name="Remove broken.png").click()
    _set(one, Max_tokens="2")
    _ask(one)
    assert len(_sent(one)["messages"]) == 1, "what was refused is no part of the conversation"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("Temperature", "-1", "Temperature"),
        ("Max tokens", "1.5", "Max tokens"),
        ("JSON schema of the answer", "{", "JSON"),
    ],
)
def test_what_cannot_be_sent_is_not_sent(visit: Open, field: str, value: str, said: str) -> None:
    one = visit()
    one.page.get_by_label(field).fill(value)
    one.page.get_by_label("Message", exact=True).fill("x")
    one.page.get_by_role("button", name="Send").click()
    expect(one.page.get_by_role("alert")).to_contain_text(said)
    expect(one.page.get_by_label(field)).to_be_focused()
    assert not [request for request in one.requested if request.method == "POST"]


def test_a_schema_is_sent_and_followed(visit: Open, red_square: bytes) -> None:
    one = visit()
    one.drop("square.png", red_square)
    _set(one, JSON_schema_of_the_answer=json.dumps(SCHEMA), Max_tokens="60")
    answer = json.loads(_ask(one).locator(".text").inner_text())
    assert _sent(one)["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert answer.keys() == {"kind", "count"}
    assert answer["kind"] in ("photo", "drawing")
    assert 1 <= answer["count"] <= 5


def test_what_the_model_says_is_text(visit: Open) -> None:
    one = visit()
    evil = '<img src="x" onerror="document.title = `taken`"><script>document.title = "taken"</script><b>bold</b>'
    chunks = [{"choices": [{"index": 0, "delta": {"content": evil}, "finish_reason": "stop"}], "usage": None}]
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    one.page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=events))
    answer = _ask(one)
    assert answer.locator(".text").text_content() == evil
    expect(answer.locator(".text *")).to_have_count(0)
    assert "taken" not in one.page.title()


def test_the_copied_command_and_program_bring_the_same(visit: Open, red_square: bytes) -> None:
    one = visit()
    one.drop("it's.png", red_square)
    _set(one, Temperature="0", Max_tokens="16", System_message='It\'s a test: $HOME `id` \\ "q"\nBODY\nend')
    answer = _ask(one)
    text = answer.locator(".text").inner_text()
    answer.get_by_role("button", name="Copy as curl").click()
    expect(one.page.get_by_role("status")).to_have_text("Command copied")
    assert _streamed(_run("bash", "-c", one.clipboard())) == text
    answer.get_by_role("button", name="Copy as Python").click()
    expect(one.page.get_by_role("status")).to_have_text("Program copied")
    assert _run(sys.executable, "-c", one.clipboard()) == text + "\n"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=_direct())
    assert done.returncode == 0, done.stderr
    return done.stdout


def _direct() -> dict[str, str]:
    assert shutil.which("curl"), "this test needs curl"
    return dict(os.environ) | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _streamed(output: str) -> str:
    events = [line.removeprefix("data:").strip() for line in output.splitlines() if line.startswith("data:")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    return "".join(choice["delta"]["content"] for chunk in chunks for choice in chunk["choices"])


def test_the_keyboard_is_enough(visit: Open, red_square: bytes, tmp_path: Path) -> None:
    one = visit()
    picture = tmp_path / "square.png"
    picture.write_bytes(red_square)
    # Listened for from the start: a browser that is busy opens its own dialog else.
    one.page.on("filechooser", lambda chooser: chooser.set_files(picture))
    assert one.focused() == "Message"
    keyboard = one.page.keyboard
    passed = one.press_until("Tab", "Temperature")
    assert passed == ["Message", "Add pictures", "Send", "System message"]
    keyboard.type("0")
    one.press_until("Shift+Tab", "Add pictures")
    keyboard.press("Enter")
    expect(one.page.get_by_role("status")).to_have_text("1 picture attached")
    one.press_until("Shift+Tab", "Message")
    keyboard.type(QUESTION)
    keyboard.press("Shift+Enter")
    keyboard.press("Enter")
    expect(_answer(one).locator(".text")).to_contain_text("red square")
    one.press_until("Shift+Tab", "Copy as Python")
    keyboard.press("Enter")
    expect(one.page.get_by_role("status")).to_have_text("Program copied")
    one.press_until("Shift+Tab", "Timings")
    keyboard.press("Enter")
    expect(one.page.get_by_role("rowheader", name="inference")).to_be_visible()


def test_removing_keeps_the_focus_near(visit: Open, red_square: bytes) -> None:
    one = visit()
    for name in ("a.png", "b.png"):
        one.drop(name, red_square)
        expect(one.page.get_by_role("button", name=f"Remove {name}")).to_be_visible()
    one.press_until("Shift+Tab", "Remove a.png")
    one.page.keyboard.press("Enter")
    assert one.focused() == "Remove b.png"
    one.page.keyboard.press("Enter")
    assert one.focused() == "Message"


def test_on_a_telephone(visit: Open, red_square: bytes) -> None:
    one = visit(viewport=PHONE)
    panel, opener = one.page.locator("#settings"), one.page.get_by_role("button", name="Settings")
    expect(panel).not_to_be_visible()
    opener.click()
    expect(panel).to_be_visible()
    assert one.focused() == "Done"
    _set(one, Temperature="0", Max_tokens="24")
    one.page.keyboard.press("Escape")
    expect(panel).not_to_be_visible()
    expect(opener).to_be_focused()
    one.drop("square.png", red_square)
    expect(_ask(one).locator(".text")).to_contain_text("red square")
    assert one.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(one.page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_accessible(visit: Open, node: Node, red_square: bytes, scheme: str, viewport: dict[str, int] | None) -> None:
    one = visit(scheme=scheme, viewport=viewport)
    one.drop("broken.png", b"not a picture")
    _ask(one)
    one.page.get_by_role("button", name="Remove broken.png").click()
    one.drop("square.png", red_square)
    _ask(one).get_by_text("Timings").click()
    one.drop("square.png", red_square)
    one.page.evaluate((node.packages / "axe-core" / "axe.min.js").read_text())
    found = one.page.evaluate("axe.run()")
    assert [(breach["id"], breach["nodes"][0]["html"]) for breach in found["violations"]] == []


def test_a_server_with_a_key(visit: Open, logs: Path) -> None:
    with launched.running(logs / "playground-key.log", "--api-key", "open sesame") as server:
        one = visit(server.url)
        expect(one.page.locator("#model")).to_have_text("A key is needed")
        expect(one.page.get_by_label("API key")).to_be_focused()
        one.page.get_by_label("API key").fill("open sesame")
        one.page.keyboard.press("Tab")
        expect(one.page.locator("#model")).to_have_text("text-generation-vlm/embedded")
        _set(one, Max_tokens="4", Temperature="0")
        answer = _ask(one, "Hello!")
        text = answer.locator(".text").inner_text()
        answer.get_by_role("button", name="Copy as curl").click()
        expect(one.page.get_by_role("status")).to_have_text("Command copied")
        assert "sesame" not in one.clipboard()
        assert _streamed(_run("env", "API_KEY=open sesame", "bash", "-c", one.clipboard())) == text
        one.page.reload()
        expect(one.page.locator("#model")).to_have_text("text-generation-vlm/embedded")


def test_a_server_that_is_gone(visit: Open, logs: Path) -> None:
    with launched.running(logs / "playground-gone.log") as server:
        one = visit(server.url)
        expect(one.page.locator("#model")).to_have_text("text-generation-vlm/embedded")
    expect(_ask(one).get_by_role("alert")).to_contain_text("cannot be reached")
    one.complaints.clear()


def test_the_answer_is_that_of_the_api(visit: Open, server: Server, red_square: bytes) -> None:
    one = visit()
    one.drop("square.png", red_square)
    _set(one, Temperature="0", Max_tokens="24")
    text = _ask(one).locator(".text").inner_text()
    content = [image_part(data_uri(red_square)), text_part(QUESTION)]
    assert chat(server, content, max_tokens=24)["choices"][0]["message"]["content"] == text
