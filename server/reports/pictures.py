"""Which pictures a template can ask for. On S3 each is copied first, and a job may have thousands."""

import re
from collections.abc import Mapping
from urllib.parse import unquote

from media.formats import SIZES
from media.pdf import Template
from server.reports.context import ReportMaterial

#: The member of a file: ``file.src``, ``file['src']``, ``selectattr('src')``, ``map(attribute='file.src')``.
_SRC = re.compile(r"""\.\s*src\b|["']src["']""")
#: Pictures of a size that the template says itself.
_SIZED = re.compile(r"thumbnails|att:", re.IGNORECASE)
#: The same with the size in plain sight.
_PLAIN = re.compile(
    r"""thumbnails\s*(?:\.\s*(SIZES)\b|\[\s*["'](SIZES)["']\s*\])|att:[^/"'<>]*/(SIZES)\b""".replace(
        "SIZES", "|".join(SIZES)
    ),
    re.IGNORECASE,
)


def needed(material: ReportMaterial, template: Template, all_sizes: bool = True) -> Mapping[str, str]:
    """Those of ``material.keys``; none if the template names no picture.

    Args:
        all_sizes: the template may name sizes (``thumbnails``, ``att:``); else it shows what ``src`` says.
    """
    text = f"{template.header}\n{template.body}"
    names: set[str] = set()
    if _SRC.search(text):
        sources = (file["src"] for file in material.context["attachments"])
        names = {unquote(source.removeprefix("att:")) for source in sources if source is not None}
    sizes = _sizes(text) if all_sizes else set()
    return {
        name: key for name, key in material.keys.items() if name in names or name.rpartition("/")[2] in sizes
    }


def first(keys: Mapping[str, str], sizes: Mapping[str, int], most: int, most_bytes: int) -> Mapping[str, str]:
    """So many of the pictures, in their order.

    Args:
        sizes: their bytes.
    """
    kept: dict[str, str] = {}
    total = 0
    for name, key in keys.items():
        total += sizes.get(name, 0)
        if len(kept) == most or total > most_bytes:
            break
        kept[name] = key
    return kept


def _sizes(text: str) -> set[str]:
    """The sizes that a template can ask for by name: all of them, unless each is said in plain sight."""
    plain = _PLAIN.findall(text)
    if len(plain) < len(_SIZED.findall(text)):
        return set(SIZES)
    return {size.lower() for groups in plain for size in groups if size}
