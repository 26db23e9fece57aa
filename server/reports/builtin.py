"""The report of teams that have written no template of their own."""

from importlib.resources import files

from media.pdf import Template

BUILT_IN_NAME = "Standard report"

_FOLDER = files("media") / "report_builtin"

BUILT_IN = Template(
    body=(_FOLDER / "body.html").read_text(encoding="utf-8"),
    header=(_FOLDER / "header.html").read_text(encoding="utf-8"),
    header_height=48,
)
