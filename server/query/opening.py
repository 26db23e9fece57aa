"""Documents of jobs, opened as far as a query looks at them.

A hundred jobs have megabytes, and a query seldom asks for more than a few members of each step. Only these are decoded,
into objects that are made for just them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypedDict

import msgspec
from msgspec import UNSET, UnsetType

from sync.facts import LISTS, WRAPPERS, Json, Visit, arranged, children, number, repeated_in, text

#: What every step is arranged by.
_ARRANGING = (
    *("stepId", "uniqueStepId", "parentUniqueStepId", "formLoopIteration"),
    *("started", "completed", "cancelled", "updated"),
)
_HEAD = (
    *("clientJobId", "workflowId", "workflowVersionId", "workflowName", "jobTitle", "metadata"),
    *("created", "updated", "modified", "status", "userId", "username"),
)
_TOP = ("jobId", "team", "excluded")
#: The places of visits that the document has twice; no member of JSON has this name.
_REPEATED = "\0repeated"
#: Members that are calculated with.
_NUMBERS = {"coordinates", "timeEvents"}
_full = msgspec.json.Decoder(dict[str, Any], float_hook=number)


class OpenedStep(msgspec.Struct, gc=False):
    """A step of which some members were decoded: they are its attributes."""

    #: As of an object of JSON; whoever looks at a member that was not decoded is told so. In C, since it is called for
    #: each member of each step.
    get = object.__getattribute__


@lru_cache(maxsize=256)
def opener(members: frozenset[str] | None) -> Callable[[bytes], Json]:
    """What opens documents: their heads are JSON, their steps are for :func:`visited` and
    :func:`steps_in`.

    Args:
        members: of each step, which a query looks at; None if it does not look at steps.
    """
    kind = _document_kind(members)
    # How a number is spelled is told of answers and texts, and costs more than all else of a place.
    hook = None if members is not None and members <= _NUMBERS else number
    decode = msgspec.json.Decoder(kind, float_hook=hook).decode

    def opened(view: bytes) -> Json:
        document: dict[str, Any]
        try:
            document = decode(view)
        except msgspec.ValidationError:
            document = msgspec.convert(_straightened(_full.decode(view)), kind)
        if members is not None and _may_repeat(document):
            # Only whole steps tell whether they are the same.
            document[_REPEATED] = repeated_in(_full.decode(view))
        return document

    return opened


def visited(document: Json) -> list[Visit]:
    """As :func:`sync.facts.visited`, of a document that was opened; the step of each is an :class:`OpenedStep`."""
    found = _found_in(document)
    repeated = document.get(_REPEATED)
    if repeated:
        found = [visit for place, visit in enumerate(found) if place not in repeated]
    return arranged(found, once=True)


def _may_repeat(document: Json) -> bool:
    """Whether there are visits with the same ids, and such as lie in others."""
    steps = list(steps_in(document))
    if not any(step.get("parentUniqueStepId") for step in steps):
        return False
    ids = {(text(step.get("uniqueStepId")), text(step.get("stepId"))) for step in steps}
    return len(ids) < len(steps)


def _found_in(document: Json) -> list[Visit]:
    found: list[Visit] = []
    for phase, wrapped in _lists(document):
        for outer in wrapped or ():
            if outer is not None and outer.singleStep is not None:
                found.append(_visit(outer.singleStep, phase, is_form=False))
            if outer is not None and outer.reportStep is not None:
                found.append(_visit(outer.reportStep, phase, is_form=True))
    return found


def steps_in(document: Json, *phases: str) -> Iterator[OpenedStep]:
    """The steps of these phases, or of all, as they stand in a document that was opened; a form before its children."""
    for phase, wrapped in _lists(document):
        if phases and phase not in phases:
            continue
        for outer in wrapped or ():
            for step in (outer.singleStep, outer.reportStep) if outer is not None else ():
                if step is not None:
                    yield step
                    if step.steps:
                        yield from _children(step)


def _lists(document: Json) -> list[tuple[str, Any]]:
    lists = [(phase, document.get(name)) for name, phase in LISTS]
    lists.append(("open", (document.get("sync") or {}).get("openSteps")))
    lists.append(("open", [(document.get("metadata") or {}).get("currentStep")]))
    return lists


def _visit(step: Any, phase: str, is_form: bool) -> Visit:
    nested = isinstance(step.steps, list)
    visit = Visit(step, phase, nested or is_form, step.started, step.parentUniqueStepId)
    if nested:
        visit.inside = [
            Visit(child, phase, child.steps is not UNSET, child.started, child.parentUniqueStepId)
            for child in _children(step)
        ]
    return visit


def _children(step: Any) -> Iterator[Any]:
    """Whether they are wrapped or not."""
    for child in step.steps:
        if child is not None and child.singleStep is UNSET and child.reportStep is UNSET:
            yield child
        elif child is not None:
            yield from (wrapped for wrapped in (child.singleStep, child.reportStep) if wrapped)


def _straightened(document: Json) -> Json:
    """A document that is not as documents are, so that it is: without what no visit is made of, and without forms in
    forms, which are children like others.
    """
    head, sync = document.get("metadata"), document.get("sync")
    straight = {name: value for name, value in document.items() if name in _TOP}
    straight |= {name: _list(document.get(name)) for name, _ in LISTS}
    if isinstance(head, dict):
        straight["metadata"] = {**head, "currentStep": next(iter(_list([head.get("currentStep")])), None)}
    if isinstance(sync, dict):
        straight["sync"] = {"openSteps": _list(sync.get("openSteps"))}
    return straight


def _list(wrapped: Any) -> list[dict[str, Json]]:
    return [
        {kind: _straight_step(outer[kind]) for kind in WRAPPERS if isinstance(outer.get(kind), dict)}
        for outer in (wrapped if isinstance(wrapped, list) else ())
        if isinstance(outer, dict)
    ]


def _straight_step(step: Json) -> Json:
    nested = [_child(child) for child in children(step)] if isinstance(step.get("steps"), list) else None
    return {**step, "steps": nested}


def _child(step: Json) -> Json:
    """The visits inside it stand beside it; that it has some is all that it tells of them."""
    straight = {name: value for name, value in step.items() if name not in WRAPPERS}
    return straight | {"steps": None} if "steps" in step else straight


def _document_kind(members: frozenset[str] | None) -> Any:
    head: dict[str, Any] = dict.fromkeys(_HEAD, Any)
    if members is None:
        return _typed_dict("Document", {**dict.fromkeys(_TOP, Any), "metadata": _typed_dict("Head", head)})
    known = [(name, Any, None) for name in sorted({*_ARRANGING, *members})]
    no_steps = ("steps", None | UnsetType, UNSET)
    wrapped = _step("Wrapped", [*known, no_steps]) | None | UnsetType
    child = _step("Child", [*known, no_steps, *((kind, wrapped, UNSET) for kind in WRAPPERS)])
    step = _step("Step", [*known, ("steps", _list_of(child) | None, None)])
    wrapper: Any = msgspec.defstruct("Wrapper", [(kind, step | None, None) for kind in WRAPPERS], gc=False)
    wrappers = _list_of(wrapper) | None
    return _typed_dict(
        "Document",
        {
            **dict.fromkeys(_TOP, Any),
            **{name: wrappers for name, _ in LISTS},
            "metadata": _typed_dict("Head", head | {"currentStep": wrapper | None}),
            "sync": _typed_dict("Sync", {"openSteps": wrappers}) | None,
        },
    )


def _step(name: str, members: Sequence[tuple[str, Any, Any]]) -> Any:
    return msgspec.defstruct(name, members, bases=(OpenedStep,), gc=False)


def _list_of(kind: Any) -> Any:
    return list[kind | None]


def _typed_dict(name: str, members: Mapping[str, Any]) -> Any:
    return TypedDict(name, dict(members), total=False)  # type: ignore[operator]  # made of what is selected
