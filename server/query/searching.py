"""``step(search:)`` and ``step(regexSearch:)``: which visit of a job is meant (section 3.5.3.4)."""

import re
from collections.abc import Callable, Sequence

import re2

from server.query.documents import QueryProblem
from server.query.selecting import Field
from sync.facts import STEP_FIELDS, Names, Visit

MAX_TERMS = 100
#: Characters of a pattern.
MAX_PATTERN = 256
#: Memory that a pattern may take, bytes; RE2 matches within it in linear time.
_MAX_MEMORY = 1 << 20
#: ``[a-z&&[^aeiou]]`` and ``[a-z-[aeiou]]``: other dialects subtract there; RE2 would take it for something else.
_SUBTRACTION = re.compile(r"\[[^\]]*(?:&&|-\[)")

Search = Callable[[Sequence[Visit], Names], Visit | None]

_id, _tag, _title = STEP_FIELDS["stepId"], STEP_FIELDS["stepTag"], STEP_FIELDS["stepTitle"]


def search_of(field: Field) -> Search:
    """What finds the step.

    Raises:
        QueryProblem: ``invalid-argument``: neither is given, or both, or the pattern is none of RE2's.
    """
    terms, pattern = field.arguments.get("search"), field.arguments.get("regexSearch")
    if terms is not None and pattern is None:
        if len(terms) > MAX_TERMS:
            raise _refused(field, f"search may have {MAX_TERMS} values.")
        return _exact(frozenset(terms))
    if pattern is not None and terms is None:
        return _matching(field, pattern)
    raise _refused(field, "step takes either search or regexSearch.")


def _exact(terms: frozenset[str]) -> Search:
    def search(visits: Sequence[Visit], known: Names) -> Visit | None:
        for told in (_id, _tag, _title):
            for visit in visits:
                if told(visit, known) in terms:
                    return visit
        return None

    return search


def _matching(field: Field, pattern: str) -> Search:
    if len(pattern) > MAX_PATTERN:
        raise _refused(field, f"regexSearch may have {MAX_PATTERN} characters.")
    if _SUBTRACTION.search(pattern):
        raise _refused(field, "regexSearch: sets within sets, as in [a-z-[aeiou]], are not understood.")
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise _refused(field, f"regexSearch is no pattern of RE2: {reason}") from None

    def search(visits: Sequence[Visit], known: Names) -> Visit | None:
        for visit in visits:
            for told in (_tag, _title):
                said = told(visit, known)
                if said is not None and compiled.search(said) is not None:
                    return visit
        return None

    return search


def _refused(field: Field, message: str) -> QueryProblem:
    return QueryProblem.of("invalid-argument", message, (field.key,))
