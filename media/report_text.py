"""Templates of reports: Jinja2 in its sandbox, with the place of an error as line and column. Runs in the pool."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NoReturn

from jinja2 import Environment, TemplateError, TemplateNotFound, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.lexer import TOKEN_INTEGER, Lexer
from jinja2.runtime import ChainableUndefined, Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from media.formats import Refused
from media.pdf import TemplateProblem, clean
from media.report_filters import FILTERS

#: Characters of a report's HTML. A job of 1,000 steps makes less than one million.
MAX_HTML = 20_000_000
_MAX_NOTES, _MAX_NOTE = 50, 200
#: Of a whole number. Python refuses to read those of more than 4,300 with an error without a place.
_MAX_DIGITS = 1000
_NEWLINE = re.compile(r"\r\n|\r|\n")  # what Jinja2 takes for the end of a line
_POSITION = re.compile(r" at \d+$")  # counted from the beginning: line and column say it


class Log:
    """What the template's author should know, each once."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Keep a note, cut to 200 characters; beyond the 50th none is kept."""
        text = clean(text)
        if len(self._notes) < _MAX_NOTES:
            self._notes[text if len(text) <= _MAX_NOTE else text[: _MAX_NOTE - 1] + "…"] = None


def check(source: str, part: str) -> None:
    """Parse a part of a template.

    Raises:
        TemplateProblem: it is wrong.
    """
    _parse(_environment(Log()), source, part)


def fill(source: str, part: str, context: Mapping[str, object], log: Log) -> str:
    """A part of a template with its values.

    Raises:
        TemplateProblem: it is wrong, or fails with these values.
        Refused: it makes too much HTML.
    """
    environment = _environment(log)
    tree = _parse(environment, source, part)
    made, length = [], 0
    try:
        for piece in environment.from_string(tree).generate(context):
            made.append(piece)
            length += len(piece)
            if length > MAX_HTML:
                raise Refused(f"The report has more than {MAX_HTML:,} characters of HTML.")
        # Half of a surrogate pair, of a text that was cut, is no letter and cannot be written. A NUL the parser replaces.
        return "".join(made).encode("utf-8", "replace").decode()
    except (Refused, MemoryError):
        raise
    except RecursionError:
        raise TemplateProblem(
            part, "It calls itself too often, or is nested too deeply.", 1, 1, True
        ) from None
    except Exception as error:  # whatever an expression of a stranger raises
        raise TemplateProblem(part, _said(error), _line_of(error), 1, True) from None


class _Place(int):
    """A line, as Jinja2 carries it from the lexer into nodes and errors, with its column."""

    column: int

    @classmethod
    def at(cls, line: int, column: int) -> "_Place":
        place = cls(line)
        place.column = column
        return place


class _PlacingLexer(Lexer):
    """Jinja2 counts lines alone. What its lexer yields is the whole source in pieces, less white space that a
    template takes away: the place of each piece is where it is found next."""

    def tokeniter(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> Iterator[tuple[int, str, str]]:
        source = _NEWLINE.sub("\n", source)
        end, line, line_start = 0, 1, 0

        def advance(position: int) -> None:
            nonlocal end, line, line_start
            newlines = source.count("\n", end, position)
            if newlines:
                line += newlines
                line_start = source.rfind("\n", end, position) + 1
            end = position

        try:
            for _, token, piece in super().tokeniter(source, name, filename, state):
                advance(source.index(piece, end))
                if token == TOKEN_INTEGER and len(piece) > _MAX_DIGITS:
                    raise TemplateSyntaxError("The number has too many digits.", line, name, filename)
                yield _Place.at(line, end - line_start + 1), token, piece
                advance(end + len(piece))
        except TemplateSyntaxError as error:
            error.lineno = _Place.at(line, min(end, len(source) - 1) - line_start + 1)
            raise


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of templates. One for each: nothing of a report remains for the next."""

    @cached_property
    def lexer(self) -> Lexer:
        return _PlacingLexer(self)

    def getattr(self, obj: object, attribute: str) -> object:
        # `step.values` is what the step says, not a method of Python's dictionaries.
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
        # Jinja2's stands for it until it is used, and ours would print nothing.
        raise SecurityError(f"{attribute!r} of a value of type {type(obj).__name__!r}")


def _environment(log: Log) -> Environment:
    class Missing(ChainableUndefined):
        """A name without a value prints nothing, and so do its members; the log has the name."""

        __slots__ = ()

        def _noted(self) -> None:
            log.note(f"undefined: {self._undefined_name}")

        def __str__(self) -> str:
            self._noted()
            return ""

        def __iter__(self) -> Iterator[object]:
            self._noted()
            return iter(())

        def __len__(self) -> int:
            self._noted()
            return 0

        def __getattr__(self, name: str) -> "Missing":
            if name.startswith("__"):  # Python asks for things of its own
                raise AttributeError(name)
            return Missing(name=f"{self._undefined_name}.{name}")

        def __getitem__(self, key: object) -> "Missing":  # type: ignore[override]
            return Missing(name=f"{self._undefined_name}.{key}")

    environment = _Environment(
        undefined=Missing,
        autoescape=True,
        optimized=False,
        finalize=_shown,
        keep_trailing_newline=True,
        cache_size=0,
    )
    environment.filters.update(FILTERS)
    return environment


@pass_context  # whatever has a context is not computed when the template is compiled
def _shown(context: Context, value: object) -> object:
    """What is printed of a value: nothing of null."""
    return "" if value is None else value


def _parse(environment: Environment, source: str, part: str) -> nodes.Template:
    def wrong(detail: str, place: int) -> NoReturn:
        lines = _NEWLINE.split(source)
        line = min(max(place, 1), len(lines))
        column = min(max(getattr(place, "column", 1), 1), max(len(lines[line - 1]), 1))
        raise TemplateProblem(part, detail, line, column)

    try:
        tree = environment.parse(source)
        for node in tree.find_all((nodes.Filter, nodes.Test, nodes.Include, nodes.Extends, *_IMPORTS)):
            if detail := _unknown(environment, node):
                wrong(detail, node.lineno)
    except TemplateSyntaxError as error:
        wrong(_sentence(_POSITION.sub("", error.message or "This cannot be read.")), error.lineno)
    except RecursionError:
        wrong("It is nested too deeply.", 1)
    except (TemplateError, ValueError, OverflowError, RuntimeError, SyntaxError) as error:
        # What Jinja2 does not expect of a template, like a number of 5,000 digits.
        wrong(_sentence(str(error)), 1)
    return tree


_IMPORTS = (nodes.Import, nodes.FromImport)


def _unknown(environment: Environment, node: nodes.Node) -> str | None:
    """What a node asks for that there is not."""
    if isinstance(node, nodes.Filter):
        # `{% filter %}` and chains are filters of filters.
        return None if node.name in environment.filters else f"There is no filter named {node.name!r}."
    if isinstance(node, nodes.Test):
        return None if node.name in environment.tests else f"There is no test named {node.name!r}."
    return "A report is one template: there is nothing to include, import or extend."


def _said(error: Exception) -> str:
    if isinstance(error, TemplateNotFound):
        return "A report is one template: there is nothing to include, import or extend."
    if isinstance(error, SecurityError):
        return _sentence(f"This is not allowed in a template: {error}")
    if isinstance(error, TemplateError):
        return _sentence(error.message or type(error).__name__)
    return _sentence(f"{type(error).__name__}: {error}")


def _sentence(text: str) -> str:
    text = text.strip()[:300]
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _line_of(error: Exception) -> int:
    """The line of the template that raised it, as Jinja2 writes it into the traceback."""
    if isinstance(error, TemplateSyntaxError):
        return max(int(error.lineno), 1)
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
