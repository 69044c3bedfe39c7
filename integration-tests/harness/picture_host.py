"""A web server on a loopback address that serves pictures, and misbehaves on request. Not an image server: a foil.

Paths: `/NAME` a registered file; `/redirect?to=URL`, `/drip`, `/endless`, `/missing`, `/hang`, `/lies`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

# The shared server may fetch from the second loopback address and not from the first: it shows both policies.
ALLOWED_ADDRESS = "127.0.0.2"
REFUSED_ADDRESS = "127.0.0.1"
FETCH_TIMEOUT_S = 3
DRIP_S = 0.25
ENDLESS_CHUNK = b"\0" * 65536


class PictureHost(ThreadingHTTPServer):
    """Serves `files`, counts requests in `seen`, and the connections that are open in `open_now`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.files: dict[str, tuple[str, bytes]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.open_now = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        """Address of a path on this host."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/{path}"

    def serve(self, name: str, data: bytes, mime: str = "image/png") -> str:
        """Registers a file and says where it is."""
        self.files[name] = (mime, data)
        return self.url(name)

    def requests_for(self, path: str) -> list[dict[str, str]]:
        """Headers of every request seen for a path."""
        with self.lock:
            return [headers for seen, headers in self.seen if seen == path]


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Quiet: the tests ask `seen` instead."""

    def do_GET(self) -> None:
        host = cast(PictureHost, self.server)
        path = urlsplit(self.path).path.lstrip("/")
        with host.lock:
            host.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
            host.open_now += 1
        try:
            self._answer(host, path)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with host.lock:
                host.open_now -= 1

    def _answer(self, host: PictureHost, path: str) -> None:
        behaviours = {"redirect": self._redirect, "drip": self._drip, "endless": self._endless, "hang": self._hang}
        if path in behaviours:
            behaviours[path]()
        elif path in host.files:
            self._file(*host.files[path])
        else:
            self.send_error(404)

    def _file(self, mime: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", mime)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header("location", parse_qs(urlsplit(self.path).query)["to"][0])
        self.send_header("content-length", "0")
        self.end_headers()

    def _start_endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.end_headers()

    def _drip(self) -> None:
        """One byte now and then: each read succeeds, and it never ends by itself."""
        self._start_endless()
        for _ in range(400):
            self.wfile.write(b"\x89")
            time.sleep(DRIP_S)

    def _hang(self) -> None:
        """Takes the request and says nothing until the other side leaves."""
        self.connection.settimeout(60)
        self.rfile.read(1)

    def _endless(self) -> None:
        self._start_endless()
        for _ in range(4096):
            self.wfile.write(ENDLESS_CHUNK)


@contextmanager
def picture_host(address: str) -> Iterator[PictureHost]:
    """A running host, gone afterwards."""
    host = PictureHost(address)
    thread = threading.Thread(target=host.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
