"""A headless Chromium, for pages that people see.

Playwright's synchronous interface refuses to run where an event loop does, and tests may have one in their
thread: the browser lives in a thread of its own, and tests hand it functions to run there.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page, Playwright, Request, sync_playwright

T = TypeVar("T")

CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE = {"width": 375, "height": 667}
DESKTOP = {"width": 1280, "height": 800}
#: How long a page may take on a busy machine.
WAIT_MS = 30_000


class Chromium:
    """One browser; each visit has cookies of its own."""

    def __init__(self, thread: ThreadPoolExecutor, playwright: Playwright, browser: Browser) -> None:
        self._thread = thread
        self._playwright = playwright
        self._browser = browser

    def visit(self, work: Callable[[Page], T], *, size: dict[str, int] | None = None, **context: Any) -> T:
        """What ``work`` answers about a fresh page.

        Whatever the page asks of other hosts than this machine is a failure, and so are errors in its console.

        Args:
            size: of the window: :data:`PHONE` or :data:`DESKTOP` (the default).
            context: further options of playwright's ``new_context``, e.g. ``java_script_enabled``.
        """
        return self._thread.submit(self._visit, work, size or DESKTOP, context).result(timeout=240)

    def _visit(self, work: Callable[[Page], T], size: dict[str, int], options: dict[str, Any]) -> T:
        context = self._browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        outside: list[str] = []
        errors: list[str] = []

        def watch(request: Request) -> None:
            host = request.url.split("/")[2] if "//" in request.url else ""
            if not host.startswith(("127.0.0.1", "[::1]", "localhost")) and host:
                outside.append(request.url)

        try:
            page = context.new_page()
            page.on("request", watch)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "console",
                lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None,
            )
            result = work(page)
        finally:
            context.close()
        assert outside == []
        assert errors == []
        return result


@contextmanager
def chromium() -> Iterator[Chromium]:
    """The browser, until the end of the block."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chromium")

    def start() -> tuple[Playwright, Browser]:
        playwright = sync_playwright().start()
        return playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)

    def stop() -> None:
        browser.close()
        playwright.stop()

    playwright, browser = thread.submit(start).result(timeout=120)
    try:
        yield Chromium(thread, playwright, browser)
    finally:
        thread.submit(stop).result(timeout=60)
        thread.shutdown()


def screenshot(page: Page, file: Path) -> None:
    """The whole page as a PNG."""
    page.screenshot(path=str(file), full_page=True)
