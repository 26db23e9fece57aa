"""Printing reports in the real pool, and reading what was printed."""

import asyncio
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from media.pdf import Printed, Template, print_report, warm_up
from media.sandbox import Sandbox

T = TypeVar("T")


class Printer:
    """A pool of one worker, for many tests."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool = Sandbox(1, warm_up=warm_up)

    def __call__(
        self,
        template: Template,
        context: Mapping[str, object] | None = None,
        files: Mapping[str, str] | None = None,
        as_pdf: bool = True,
        seconds: float = 60,
    ) -> Printed:
        return self.run(print_report, template, context or {}, files or {}, as_pdf, seconds=seconds)

    def run(self, function: Callable[..., T], *args: Any, seconds: float = 60) -> T:
        return self._runner.run(self._pool.run(function, *args, seconds=seconds))

    def close(self) -> None:
        self._runner.run(self._pool.close())
        self._runner.close()


@pytest.fixture(scope="module")
def printing() -> Iterator[Printer]:
    """Prints a template; the pool lives as long as the module."""
    printer = Printer()
    yield printer
    printer.close()


class Tools:
    """What poppler says of a PDF."""

    def text(self, pdf: bytes) -> str:
        return self._run("pdftotext", pdf, "-layout", "-", "-").decode()

    def pages(self, pdf: bytes) -> list[str]:
        return self.text(pdf).split("\f")[:-1]

    def information(self, pdf: bytes) -> dict[str, str]:
        lines = self._run("pdfinfo", pdf, "-").decode().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _run(self, command: str, pdf: bytes, *arguments: str) -> bytes:
        return subprocess.run([command, *arguments], input=pdf, check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Poppler; without it the test is passed over."""
    if shutil.which("pdftotext") is None or shutil.which("pdfinfo") is None:
        pytest.skip("there is no pdftotext and pdfinfo (poppler-utils)")
    return Tools()


def contents(pdf: bytes) -> bytes:
    """All that a PDF holds, with what is compressed beside it unpacked."""
    parts = [pdf]
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            parts.append(zlib.decompressobj().decompress(stream))
        except zlib.error:
            continue
    return b"\n".join(parts)
