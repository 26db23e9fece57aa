"""What PDF reports need: a library of the system, fonts, and letters in them."""

import asyncio
import shutil

from media.formats import Refused
from media.pdf import Template, print_report
from media.sandbox import Interrupted, Sandbox
from server.doctor.findings import Finding, Installation, failed, ok, skipped, warning

#: The packages of Debian and Ubuntu; the Makefile installs the same.
PACKAGES = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
_PRINT_SECONDS = 25.0
_LETTERS = {"Chinese": "zh-cn", "Japanese": "ja", "Korean": "ko", "Arabic": "ar"}
_NOTO = {"Arabic": "fonts-noto-core"}


async def check_pdf(installation: Installation) -> Finding:
    """One page, made as reports are: in the limited pool."""
    sandbox = Sandbox(1)
    try:
        printed = await sandbox.run(
            print_report, Template("<p>Fieldsync {{ 6 * 7 }}</p>"), {}, {}, seconds=_PRINT_SECONDS
        )
    except (Refused, Interrupted) as error:
        return failed(
            f"no page can be made: {error}",
            "Reports take up to 1 GB of memory and some seconds: give the machine or the container more, or make fewer "
            "at once (FIELDSYNC_REPORT_WORKERS).",
        )
    except (OSError, ImportError) as error:
        return failed(
            f"a library is missing: {installation.quote(error).partition('. ')[0]}",
            f"Debian, Ubuntu: sudo apt-get install {PACKAGES}. Fedora: sudo dnf install pango dejavu-sans-fonts. Alpine: "
            "apk add pango font-dejavu. Everything but reports works without.",
        )
    finally:
        await sandbox.close()
    if not printed.pdf.startswith(b"%PDF-") or printed.pages != 1:
        return failed(
            f"{printed.pages} pages came out instead of one",
            "Install the versions that pyproject.toml names.",
        )
    return ok(f"a page of {len(printed.pdf):,} bytes")


async def check_fonts(installation: Installation) -> Finding:
    """There are some, and they hold the letters that people write."""
    if shutil.which("fc-list") is None:
        return skipped("there is no fc-list to ask (Debian, Ubuntu: the package fontconfig)")
    count = len(await _fonts())
    if not count:
        return failed(
            "there is none: reports come out without letters",
            "Debian, Ubuntu: sudo apt-get install fonts-dejavu-core",
        )
    lacking = [letters for letters, language in _LETTERS.items() if not await _fonts(f":lang={language}")]
    if lacking:
        packages = sorted({_NOTO.get(letters, "fonts-noto-cjk") for letters in lacking})
        return warning(
            f"{count:,} fonts, but none with {_listed(lacking)} letters: reports show boxes instead",
            f"If your teams write them: sudo apt-get install {' '.join(packages)}",
        )
    return ok(f"{count:,}, with {_listed(list(_LETTERS))} letters too")


async def _fonts(pattern: str = ":") -> list[bytes]:
    """The families that match a pattern of fontconfig."""
    process = await asyncio.create_subprocess_exec(
        "fc-list",
        pattern,
        "family",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return [line for line in output.splitlines() if line.strip()]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
