"""Queries as text: parsed, bounded, validated. What would take long is refused before it takes long.

The bounds are counted on the document with its fragments filled in, before it is validated: some rules of validation
take time that grows with the square of the fields.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    NoUndefinedVariablesRule,
    NoUnusedVariablesRule,
    OperationDefinitionNode,
    OperationType,
    OverlappingFieldsCanBeMergedRule,
    SelectionSetNode,
    VariablesInAllowedPositionRule,
    build_schema,
    parse,
    specified_rules,
    validate,
)
from graphql.error import GraphQLSyntaxError

#: Bytes of a request's body, and of the query in an address.
MAX_BYTES = 32 * 1024
#: Names, values and brackets: two hundred named steps (below) take eleven each, and more with lists.
MAX_TOKENS = 3_000
#: Fields within fields. What lies in the description of the schema (``__schema``) is not counted.
MAX_DEPTH = 10
#: Spreadsheets are made of one named step for each column.
MAX_ALIASES = 200
#: How often one field of the root may be asked for.
MAX_ROOTS = 20
#: Fields and uses of fragments, of all operations together: what is in a fragment is counted at each use, as the
#: validation looks at it.
MAX_FIELDS = 2_000
_MAX_ERRORS = 20
#: These go through the whole query before anything else of it is looked at: last, and only if there are variables.
_RULES_OF_VARIABLES = [NoUndefinedVariablesRule, NoUnusedVariablesRule, VariablesInAllowedPositionRule]
#: That fields under one name are the same field is seen where they are merged (server/query/selecting.py), in one pass:
#: this rule compares all of them with each other, half a second for three hundred fragments.
_RULES = [
    rule for rule in specified_rules if rule not in (OverlappingFieldsCanBeMergedRule, *_RULES_OF_VARIABLES)
]


class QueryProblem(Exception):
    """What is wrong with a query. ``code`` is stable; ``errors`` is what GraphQL answers."""

    def __init__(self, code: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors[0]["message"] if errors else code)
        self.code = code
        self.errors = [{**error, "extensions": {"code": code}} for error in errors]

    @classmethod
    def of(cls, code: str, message: str, path: tuple[str | int, ...] = ()) -> "QueryProblem":
        """One error with this message."""
        return cls(code, [{"message": message, **({"path": list(path)} if path else {})}])


class Document(NamedTuple):
    """A query that may be executed."""

    operations: Mapping[str | None, OperationDefinitionNode]
    fragments: Mapping[str, FragmentDefinitionNode]

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The operation of this name; without a name the only one.

        Raises:
            QueryProblem: there is none, or several.
        """
        if name:
            found = self.operations.get(name)
            if found is None:
                raise QueryProblem.of("unknown-operation", "There is no operation of this name.")
            return found
        if len(self.operations) > 1:
            raise QueryProblem.of(
                "operation-name-missing", "There are several operations: say operationName."
            )
        return next(iter(self.operations.values()))


def load_schema() -> GraphQLSchema:
    """The schema of ``schema.graphql``."""
    return build_schema(files("server.query").joinpath("schema.graphql").read_text("utf-8"))


SCHEMA = load_schema()


@lru_cache(maxsize=256)
def read(text: str) -> Document:
    """A query, ready to be executed.

    Raises:
        QueryProblem: ``query-too-large``, ``query-syntax``, ``query-too-complex``, ``query-invalid``.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise QueryProblem.of("query-too-large", f"A query may have {MAX_BYTES:,} bytes.")
    document = _parsed(text)
    operations: dict[str | None, OperationDefinitionNode] = {}
    fragments: dict[str, FragmentDefinitionNode] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            if definition.operation is not OperationType.QUERY:
                raise QueryProblem.of(
                    "query-invalid", "Nothing can be changed here: only queries are answered."
                )
            operations[definition.name.value if definition.name else None] = definition
        elif isinstance(definition, FragmentDefinitionNode):
            fragments[definition.name.value] = definition
    if not operations:
        raise QueryProblem.of("query-invalid", "There is no query.")
    _bound(operations.values(), fragments)
    for rules in (_RULES, _RULES_OF_VARIABLES) if "$" in text else (_RULES,):
        errors = validate(SCHEMA, document, rules, max_errors=_MAX_ERRORS)
        if errors:
            raise QueryProblem("query-invalid", [_told(error) for error in errors])
    return Document(operations, fragments)


def _parsed(text: str) -> DocumentNode:
    try:
        return parse(text, max_lexical_tokens=MAX_TOKENS, max_comments=MAX_TOKENS)
    except GraphQLSyntaxError as error:
        if "Parsing aborted" in error.message:
            raise QueryProblem.of(
                "query-too-complex",
                f"A query may have {MAX_TOKENS:,} names, values and brackets, as many comments, and fields that lie "
                f"{MAX_DEPTH} deep in each other.",
            ) from None
        # The text of the library quotes what was sent, which then stands in logs and pages.
        places = [{"line": at.line, "column": at.column} for at in error.locations or ()]
        told = {"message": "The query cannot be read: there is a syntax error here.", "locations": places}
        raise QueryProblem("query-syntax", [told]) from None


def _told(error: GraphQLError) -> dict[str, Any]:
    places = [{"line": at.line, "column": at.column} for at in error.locations or ()]
    return {"message": error.message, "locations": places}


class _Size(NamedTuple):
    """What a selection comes to, with its fragments filled in."""

    fields: int = 0
    aliases: int = 0
    depth: int = 0


def _bound(
    operations: Iterable[OperationDefinitionNode], fragments: Mapping[str, FragmentDefinitionNode]
) -> None:
    """Refuse what is too large.

    Raises:
        QueryProblem: ``query-too-complex`` or, of fragments that use each other in a circle, ``query-invalid``.
    """
    known: dict[str, _Size] = {}
    fields = 0
    for operation in operations:
        size = _size_of(operation.selection_set, fragments, known, ())
        fields += size.fields
        roots = _roots(operation.selection_set, fragments) if fields <= MAX_FIELDS else Counter()
        often, times = roots.most_common(1)[0] if roots else ("", 0)
        complaint = None
        if size.depth > MAX_DEPTH:
            complaint = f"Fields may lie {MAX_DEPTH} deep in each other; here it is {size.depth}."
        elif size.aliases > MAX_ALIASES:
            complaint = f"A query may have {MAX_ALIASES} aliases; here are {size.aliases}."
        elif times > MAX_ROOTS:
            complaint = f"One query may ask for {often} {MAX_ROOTS} times; here it is {times} times."
        elif fields > MAX_FIELDS:
            complaint = f"A query may have {MAX_FIELDS:,} fields, those of fragments counted at each use."
        if complaint is not None:
            raise QueryProblem.of("query-too-complex", complaint)


def _size_of(
    selection: SelectionSetNode | None,
    fragments: Mapping[str, FragmentDefinitionNode],
    known: dict[str, _Size],
    within: tuple[str, ...],
) -> _Size:
    fields = aliases = depth = 0
    if selection is not None and not selection.selections:
        raise QueryProblem.of("query-invalid", "Between { and } at least one field must be named.")
    for node in selection.selections if selection else ():
        if isinstance(node, FieldNode):
            inner = _size_of(node.selection_set, fragments, known, within)
            if node.name.value.startswith("__"):
                inner = inner._replace(depth=0)
            one = _Size(inner.fields + 1, inner.aliases + (node.alias is not None), inner.depth + 1)
        elif isinstance(node, InlineFragmentNode):
            one = _size_of(node.selection_set, fragments, known, within)
        else:
            assert isinstance(node, FragmentSpreadNode)
            inner = _size_of_fragment(node, fragments, known, within)
            one = inner._replace(fields=inner.fields + 1)
        fields, aliases, depth = fields + one.fields, aliases + one.aliases, max(depth, one.depth)
    return _Size(fields, aliases, depth)


def _size_of_fragment(
    node: FragmentSpreadNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    known: dict[str, _Size],
    within: tuple[str, ...],
) -> _Size:
    name = node.name.value
    if name in within:
        raise QueryProblem.of("query-invalid", "Fragments use each other in a circle.")
    if name not in known:
        fragment = fragments.get(name)
        # One that is not there is told of by the validation.
        known[name] = (
            _size_of(fragment.selection_set, fragments, known, (*within, name)) if fragment else _Size()
        )
    return known[name]


def _roots(selection: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> Counter[str]:
    """How often each field stands at the root. A fragment is looked at once, however often it is used."""
    own: dict[str, Counter[str]] = {}

    def within(selection: SelectionSetNode) -> Counter[str]:
        roots: Counter[str] = Counter()
        for node in selection.selections:
            if isinstance(node, FieldNode):
                roots[node.name.value] += 1
            elif isinstance(node, InlineFragmentNode):
                roots.update(within(node.selection_set))
            elif isinstance(node, FragmentSpreadNode) and node.name.value in fragments:
                name = node.name.value
                if name not in own:
                    own[name] = within(fragments[name].selection_set)
                roots.update(own[name])
        return roots

    return within(selection)
