"""What a query selects: its fields as a tree, with fragments filled in, directives followed and arguments read."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLSkipDirective,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_argument_values,
    get_directive_values,
    get_named_type,
    get_variable_values,
    print_ast,
)

from server.query.documents import SCHEMA, Document, QueryProblem

#: How many objects one query may touch, as far as that can be told beforehand.
MAX_COST = 250_000
#: How many of a type there may be in a list without a limit of its own: roughly, what inspections usually have.
_USUAL = {
    "Step.substeps": 3,
    "Step.attachments": 2,
    "Job.steps": 30,
    "Job.attachments": 20,
    "Job.metadata": 5,
    "Attachment.thumbnails": 3,
    "Job.reports": 2,
    "User.userGroups": 1,
    "Group.users": 5,
    "ScheduledJob.users": 5,
    "ScheduledJob.tasks": 5,
}


class Field(NamedTuple):
    """One field of the answer.

    Attributes:
        key: what it is called there.
        of: the type that it is a field of.
        arguments: as the schema reads them, with defaults; what was not given and has none is not there.
        fields: of an object, what is selected of it.
    """

    key: str
    name: str
    of: str
    arguments: Mapping[str, Any] = {}
    fields: "tuple[Field, ...]" = ()


def select(document: Document, operation_name: str | None, variables: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields that an operation selects of the root.

    Raises:
        QueryProblem: ``unknown-operation``, ``operation-name-missing``, ``invalid-variables``, ``invalid-argument``
            or ``query-too-complex``.
    """
    operation = document.operation(operation_name)
    fields = _Selecting(document, operation, variables).root()
    cost = sum(_cost(field) for field in fields)
    if cost > MAX_COST:
        raise QueryProblem.of(
            "query-too-complex",
            f"This may touch {cost:,} objects; {MAX_COST:,} is the most. Ask for fewer at once (limit).",
        )
    return fields


def _cost(field: Field) -> int:
    """About how many objects are touched."""
    if not field.fields and "limit" not in field.arguments:
        return 0
    many = field.arguments.get("limit", _USUAL.get(f"{field.of}.{field.name}", 1))
    many = max(many, 1) if isinstance(many, int) else 1
    return many * (1 + sum(_cost(inner) for inner in field.fields))


def _said(node: FieldNode) -> tuple[str, frozenset[tuple[str, str]]]:
    """What decides which field a node is."""
    arguments = ((each.name.value, print_ast(each.value)) for each in node.arguments or ())
    return node.name.value, frozenset(arguments)


class _Selecting:
    def __init__(
        self, document: Document, operation: OperationDefinitionNode, variables: Mapping[str, Any]
    ) -> None:
        self._fragments = document.fragments
        self._operation = operation
        values = get_variable_values(
            SCHEMA, operation.variable_definitions or (), dict(variables), max_errors=20
        )
        if isinstance(values, list):
            raise QueryProblem("invalid-variables", [{"message": error.message} for error in values])
        self._variables = values

    def root(self) -> tuple[Field, ...]:
        query = SCHEMA.query_type
        assert query is not None
        return self._fields(query, [self._operation.selection_set])

    def _fields(self, of: GraphQLObjectType, selections: Iterable[SelectionSetNode]) -> tuple[Field, ...]:
        nodes: dict[str, list[FieldNode]] = {}
        for selection in selections:
            for node in self._nodes(selection, set()):
                nodes.setdefault(node.alias.value if node.alias else node.name.value, []).append(node)
        return tuple(self._field(of, key, same) for key, same in nodes.items())

    def _field(self, of: GraphQLObjectType, key: str, nodes: list[FieldNode]) -> Field:
        name = nodes[0].name.value
        # A field may be selected several times under one key, if it is the same field.
        said = _said(nodes[0])
        if any(_said(node) != said for node in nodes[1:]):
            message = f"{key} is asked for twice, and not alike: give one of them another name (a: {name})."
            raise QueryProblem.of("query-invalid", message, (key,))
        if name.startswith("__"):
            return Field(key, name, of.name)
        definition = of.fields[name]
        try:
            arguments = get_argument_values(definition, nodes[0], self._variables)
        except GraphQLError as error:
            raise QueryProblem("invalid-argument", [{"message": error.message, "path": [key]}]) from None
        inner = get_named_type(definition.type)
        fields: tuple[Field, ...] = ()
        if isinstance(inner, GraphQLObjectType):
            fields = self._fields(inner, [node.selection_set for node in nodes if node.selection_set])
        return Field(key, name, of.name, arguments, fields)

    def _nodes(self, selection: SelectionSetNode, spread: set[str]) -> Iterator[FieldNode]:
        for node in selection.selections:
            if not self._included(node):
                continue
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, InlineFragmentNode):
                yield from self._nodes(node.selection_set, spread)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                spread.add(node.name.value)
                yield from self._nodes(self._fragments[node.name.value].selection_set, spread)

    def _included(self, node: Any) -> bool:
        if not node.directives:
            return True
        skip = get_directive_values(GraphQLSkipDirective, node, self._variables)
        include = get_directive_values(GraphQLIncludeDirective, node, self._variables)
        return not (skip and skip["if"]) and (include is None or bool(include["if"]))
