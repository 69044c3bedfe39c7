"""Pictures that must be refused, and addresses that must not be asked: each with its reason, none at anybody's cost."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import launched
from harness.calls import (
    Answer,
    Background,
    OpenStream,
    answer,
    chat,
    collect,
    endless,
    generate,
    image_part,
    text_part,
    wait_idle,
)
from harness.launched import Server, free_port
from harness.picture_host import FETCH_TIMEOUT_S, PictureHost
from harness.pictures import data_uri, drawing, gif_header, jpeg, markdown, photo, png, png_header
from harness.refusals import mentions, refusal

NEIGHBOUR = endless(seed=6, max_new_tokens=32)
PHOTO = photo(3, (200, 100))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
TIFF_HEADER = b"II*\0\x08\0\0\0" + b"\0" * 64


@pytest.fixture(scope="module")
def alone(server: Server, red_square_uri: str) -> Answer:
    """What the neighbour brings when nobody else is there."""
    return answer(server, markdown(red_square_uri), **NEIGHBOUR)


@pytest.fixture(autouse=True)
def _neighbour(server: Server, red_square_uri: str, alone: Answer) -> Iterator[None]:
    """A stream that runs while the test's request is refused, and must bring what it brings alone."""
    with OpenStream.generate(server, markdown(red_square_uri), **NEIGHBOUR) as stream:
        stream.take(1)
        yield
        assert collect(stream) == alone
    wait_idle(server)


INLINE = {
    "no picture": (data_uri(b"hello, I am text" * 9), ("image",)),
    "empty": ("data:image/png;base64,", ()),
    "broken base64": ("data:image/png;base64,!!!!", ("base64",)),
    "base64 cut short": (data_uri(png(PHOTO))[:-3], ("base64",)),
    "no base64 at all": ("data:image/png,hello", ("base64",)),
    "no comma": ("data:image/png;base64", ("data:",)),
    "PNG of 0x0": (data_uri(png_header(0, 0)), ("png",)),
    "PNG of 0 height": (data_uri(png_header(9, 0)), ("png",)),
    "PNG bomb": (data_uri(png_header(60_000, 60_000)), ("60000x60000",)),
    "PNG of too many pixels": (data_uri(png_header(16_000, 16_000)), ("16000x16000",)),
    "PNG of 4 billion columns": (data_uri(png_header(2**31 - 1, 1)), ("png",)),
    "GIF bomb": (data_uri(gif_header(65_535, 65_535), "image/gif"), ("65535x65535",)),
    "half a PNG": (data_uri(png(PHOTO)[: len(png(PHOTO)) // 2]), ()),
    "half a JPEG": (data_uri(jpeg(PHOTO)[: len(jpeg(PHOTO)) // 2], "image/jpeg"), ()),
    "only a signature": (data_uri(b"\x89PNG\r\n\x1a\n"), ()),
    "SVG": (data_uri(SVG, "image/svg+xml"), ("png",)),
    "TIFF": (data_uri(TIFF_HEADER, "image/tiff"), ("png",)),
    "PDF": (data_uri(b"%PDF-1.7\n" + b"\0" * 64, "application/pdf"), ("png",)),
}


@pytest.mark.parametrize(("url", "words"), INLINE.values(), ids=INLINE.keys())
def test_bad_inline_picture(server: Server, url: str, words: tuple[str, ...]) -> None:
    body = refusal(server.post("/generate", {"inputs": markdown(url) + "What is this?"}), 422)
    mentions(body, "image", *words)
    assert body["error_type"] == "validation"


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
def test_bad_picture_is_refused_with_a_status_on_every_route(server: Server, path: str) -> None:
    refusal(server.post(path, {"inputs": markdown(data_uri(b"x")), "stream": True}), 422)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_picture_in_chat(server: Server, stream: bool) -> None:
    content = [image_part(data_uri(png_header(60_000, 60_000))), text_part("What is this?")]
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], "stream": stream})
    mentions(refusal(reply, 422), "60000x60000")


def test_the_bad_one_of_several_is_named(server: Server, red_square_uri: str) -> None:
    bad = data_uri(png_header(60_000, 60_000))
    inputs = markdown(red_square_uri) + markdown(bad) + markdown(red_square_uri)
    mentions(refusal(server.post("/generate", {"inputs": inputs}), 422), "2")


def test_too_many_pictures(server: Server) -> None:
    inputs = markdown(data_uri(png(drawing("circle", "red", "white", (8, 8))))) * 17
    mentions(refusal(server.post("/generate", {"inputs": inputs}), 422), "17", "16")


def test_sixteen_bombs_at_once(server: Server) -> None:
    def refuse(number: int) -> None:
        inputs = markdown(data_uri(png_header(50_000 + number, 50_000)))
        refusal(server.post("/generate", {"inputs": inputs}, timeout=10), 422)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(refuse, range(16)))


def test_the_declared_type_is_not_trusted(server: Server) -> None:
    file = jpeg(PHOTO)
    urls = [data_uri(file, "image/jpeg"), data_uri(file, "image/png")]
    right, wrong = (answer(server, markdown(url), max_new_tokens=8) for url in urls)
    assert right == wrong


SCHEMES = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://example.com/x.png",
    "gopher://127.0.0.1/",
    "/etc/passwd",
    "x.png",
    "javascript:alert(1)",
    "blob:https://example.com/1",
]


@pytest.mark.parametrize("url", SCHEMES)
def test_other_schemes(server: Server, url: str) -> None:
    mentions(refusal(server.post("/generate", {"inputs": markdown(url)}), 422), "http")


SUSPECT_URLS = [
    "http://user:password@127.0.0.2/x.png",
    "http://127.0.0.2\\@example.com/x.png",
    "http://127.0.0.2/a b.png",
    "http://127.0.0.2/\tx.png",
    "http://",
    "http://[::1/x.png",
    "http://127.0.0.2:99999/x.png",
]


@pytest.mark.parametrize("url", SUSPECT_URLS)
def test_suspect_urls(server: Server, url: str) -> None:
    content = [image_part(url), text_part("x")]
    refusal(server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}), 422)


# {port} is that of a host that would answer: a connection would be seen.
PRIVATE = [
    "http://127.0.0.1:{port}/x.png",
    "http://localhost:{port}/x.png",
    "http://LOCALHOST.:{port}/x.png",
    "http://127.1:{port}/x.png",
    "http://2130706433:{port}/x.png",
    "http://0x7f000001:{port}/x.png",
    "http://0177.0.0.1:{port}/x.png",
    "http://0.0.0.0:{port}/x.png",
    "http://[::1]:{port}/x.png",
    "http://[::]:{port}/x.png",
    "http://[::ffff:127.0.0.1]:{port}/x.png",
    "http://[::127.0.0.1]:{port}/x.png",
    "http://[64:ff9b::7f00:1]:{port}/x.png",
    "http://[2002:7f00:1::]:{port}/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/x.png",
    "http://10.0.0.1/x.png",
    "http://172.16.0.1/x.png",
    "http://192.168.0.1/x.png",
    "http://100.64.0.1/x.png",
    "http://198.18.0.1/x.png",
    "http://192.0.0.1/x.png",
    "http://224.0.0.1/x.png",
    "http://255.255.255.255/x.png",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_not_asked(
    server: Server, private_host: PictureHost, red_square: bytes, url: str
) -> None:
    private_host.serve("x.png", red_square)
    seen = len(private_host.seen)
    start = time.monotonic()
    port = private_host.server_address[1]
    refusal(server.post("/generate", {"inputs": markdown(url.format(port=port))}), 422)
    assert len(private_host.seen) == seen
    assert time.monotonic() - start < 2, "refused by rule, not by a timeout"


def test_refused_and_unreachable_read_the_same(server: Server, private_host: PictureHost) -> None:
    unreachable = f"http://127.0.0.2:{free_port()}/x.png"
    texts = {
        refusal(server.post("/generate", {"inputs": markdown(url)}), 422)["error"]
        for url in (private_host.url("x.png"), "http://169.254.169.254/", unreachable)
    }
    assert len(texts) == 1


def test_an_allowed_address_is_asked(server: Server, host: PictureHost, red_square: bytes, red_square_uri: str) -> None:
    url = host.serve("allowed.png", red_square)
    assert answer(server, markdown(url), max_new_tokens=8) == answer(server, markdown(red_square_uri), max_new_tokens=8)


def test_fetches_say_nothing_about_the_client(server: Server, host: PictureHost, red_square: bytes) -> None:
    url = host.serve("neutral.png", red_square)
    body = {"inputs": markdown(url), "parameters": {"max_new_tokens": 1}}
    headers = {"cookie": "a=b", "referer": "http://secret/", "user-agent": "me/1", "x-forwarded-for": "1.2.3.4"}
    assert server.post("/generate", body, headers=headers).status_code == 200
    (sent,) = host.requests_for("neutral.png")
    assert not {"cookie", "referer", "authorization", "x-forwarded-for"} & set(sent)
    assert "me/1" not in sent.get("user-agent", "")
    assert sent.get("accept-encoding", "identity") == "identity"


def test_redirect_to_an_allowed_address(server: Server, host: PictureHost, red_square: bytes) -> None:
    url = host.url("redirect?to=" + host.serve("target.png", red_square))
    assert generate(server, markdown(url), max_new_tokens=2)["details"]["generated_tokens"] == 2


REDIRECTS = {
    "private address": "{private}",
    "metadata service": "http://169.254.169.254/latest/",
    "file": "file:///etc/passwd",
    "inline picture": data_uri(b"x"),
    "itself": "{self}",
    "user info": "http://user:password@127.0.0.2/",
}


@pytest.mark.parametrize("target", REDIRECTS.values(), ids=REDIRECTS.keys())
def test_bad_redirects(server: Server, host: PictureHost, private_host: PictureHost, target: str) -> None:
    private = private_host.serve("behind.png", png(PHOTO))
    url = host.url("redirect?to=" + target.format(private=private, self="/redirect?to=/redirect"))
    before = len(host.seen)
    refusal(server.post("/generate", {"inputs": markdown(url)}), 422)
    assert private_host.requests_for("behind.png") == []
    assert len(host.seen) - before <= 4, "three redirects at most"


def test_endless_redirects(server: Server, host: PictureHost) -> None:
    url = host.url("redirect?to=" + host.url("redirect?to=" + host.url("redirect?to=" + host.url("redirect?to=/x"))))
    refusal(server.post("/generate", {"inputs": markdown(url)}), 422)


@pytest.mark.parametrize("path", ["missing", "page", "endless"])
def test_answers_that_are_no_picture(server: Server, host: PictureHost, path: str) -> None:
    host.serve("page", b"<html>not a picture</html>", "text/html")
    refusal(server.post("/generate", {"inputs": markdown(host.url(path))}), 422)


@pytest.mark.parametrize("path", ["drip", "hang"])
def test_slow_answers_are_given_up(server: Server, host: PictureHost, path: str) -> None:
    start = time.monotonic()
    refusal(server.post("/generate", {"inputs": markdown(host.url(path))}), 422)
    assert time.monotonic() - start < FETCH_TIMEOUT_S + 2


def test_a_slow_fetch_delays_nobody(server: Server, host: PictureHost) -> None:
    slow = [Background(server.post, "/generate", {"inputs": markdown(host.url("hang"))}) for _ in range(8)]
    start = time.monotonic()
    answer(server, "What can you do?", max_new_tokens=4)
    assert time.monotonic() - start < FETCH_TIMEOUT_S - 1
    for request in slow:
        refusal(request.result(), 422)


def test_urls_in_text_are_not_fetched(server: Server, host: PictureHost, red_square: bytes) -> None:
    url = host.serve("typed.png", red_square)
    chat(server, f"Look: {markdown(url)} and {url}", max_tokens=1)
    chat(server, [text_part(markdown(url))], max_tokens=1)
    generate(server, f"[a link]({url}) {url}", max_new_tokens=1)
    assert host.requests_for("typed.png") == []


def test_other_fields_are_not_fetched(server: Server, host: PictureHost, red_square: bytes) -> None:
    url = host.serve("hidden.png", red_square)
    extra = {"image": url, "images": [url], "url": url, "tokenizer": url, "chat_template": url, "adapter_url": url}
    server.post("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1, **extra}, **extra})
    messages = [{"role": "user", "content": "x", **extra}]
    server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1, "mm_processor_kwargs": extra, **extra})
    assert host.requests_for("hidden.png") == []


def test_by_default_the_loopback_is_refused(logs: Path, private_host: PictureHost, red_square: bytes) -> None:
    url = private_host.serve("default.png", red_square)
    with launched.running(logs / "default-policy.log") as server:
        refusal(server.post("/generate", {"inputs": markdown(url)}), 422)
    assert private_host.requests_for("default.png") == []
