"""Two teams and the Query API: whatever one asks for, and whatever of the other's it names, it sees its own.

Generated from the schema: every field of every object is asked for, and every argument is given what the other team has.
A field that the first team's answer leaves empty fails, and so does an argument of which nobody said here what it names.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import pytest
from graphql import (
    GraphQLList,
    GraphQLObjectType,
    GraphQLString,
    get_named_type,
    get_nullable_type,
)

from fixtures.workflow_packages import chained, package, procedure, question
from server.clock import now
from server.query.documents import SCHEMA
from server.query.routes import ROOTS
from server.triggers.keys import QueryKeys
from storage.database import Connection
from storage.ids import new_id
from storage.queries.deliveries import FAILED
from storage.queries.reports import READY, ReportRow
from storage.queries.teams import insert_team
from storage.tables import reports, triggers
from tests.api.test_collections import with_parts
from tests.api.test_groups import group_of
from tests.api.test_query_roots import LATER, hired, triggered
from tests.api.test_scheduled_jobs import scheduled
from tests.support.app import Document, Headers, RunningApp, Team, finished_snapshot
from tests.support.attachments import described, put_file
from tests.support.deliveries import attempt, delivery_of
from tests.support.workflows import made

#: Argument -> the field with whose values it is compared: it is given those of the other team.
COMPARED = {
    "Query.jobs.workflowId": "Job.workflowId",
    "Query.jobs.workflowTitle": "Job.workflowTitle",
    "Query.jobs.workflowTag": "Job.workflowTags",
    "Query.jobs.workflowTagsOr": "Job.workflowTags",
    "Query.jobs.workflowTagsAnd": "Job.workflowTags",
    "Query.jobs.userName": "Job.userName",
    "Query.jobs.userId": "Job.userId",
    "Query.jobs.jobTitle": "Job.jobTitle",
    "Query.jobs.jobId": "Job.jobId",
    "Query.jobs.createdSince": "Job.created",
    "Query.jobs.createdBefore": "Job.created",
    "Query.jobs.updatedSince": "Job.updated",
    "Query.jobs.updatedBefore": "Job.updated",
    "Query.jobs.modifiedSince": "Job.modified",
    "Query.jobs.modifiedBefore": "Job.modified",
    "Query.jobs.status": "Job.status",
    "Query.jobs.cursor": "Job.completedJobCursor",
    "Query.scheduledJobs.state": "ScheduledJob.state",
    "Query.collections.collectionId": "Collection.collectionId",
    "Job.step.search": "Step.stepId",
    "Job.step.regexSearch": "Step.stepTitle",
    "Trigger.deliveries.before": "Delivery.deliveryId",
}
#: Arguments that name nothing, wherever they are: how many, and in which order.
PAGING = {"limit", "skip", "order"}
#: What a field is asked with unless it is asked with something else, so that nothing is left out.
WIDE: Mapping[str, Any] = {
    "Query.jobs.includeExcluded": True,
    "Query.workflows.includeArchived": True,
    "Job.step.regexSearch": ".",
}
#: Texts that other teams have too: names of kinds and states, and what a tablet calls the task that a job does.
SHARED = {
    *(
        "NameValue.name",
        "Job.status",
        "Step.phase",
        "Step.stepType",
        "Attachment.mimeType",
        "Report.mimeType",
    ),
    *("Thumbnail.name", "Thumbnail.mimeType", "User.permissions", "Group.permissions"),
    *("ScheduledJob.state", "ScheduledTask.taskType", "ScheduledTask.state"),
    *("Trigger.triggerType", "Delivery.type", "Delivery.state"),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ID = re.compile(r"[0-9a-f]{24}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# A team that has everything


def furnished(app: RunningApp, word: str) -> Team:
    """A team with something of everything, in each of its texts the word, and in every field a value."""
    team = Team(app, app.write(insert_team, f"{word} team", now()), f"{word} team")
    person = hired(team, f"{word} person", f"{word}@example.com")
    assert team.put(f"/api/team/user/{person['userId']}/permissions", json={"executor": True}).is_success
    group_id = group_of(team, name=f"{word} group", editor=True)
    assert team.put(f"/group/{group_id}/users", json=[person["userId"]]).is_success
    asked = question("Text", f"{word} question", tag=f"{word} tag")
    content = package(procedure(chained(asked)))
    named: Document = {
        "name": f"{word} workflow",
        "description": f"{word} description",
        "tags": [f"{word} tag"],
    }
    workflow = made(team, content, **named)
    plan = scheduled(
        team,
        person["userId"],
        name=f"{word} plan",
        description=f"{word} description",
        tasks=[{"taskType": "workflow", "artifactId": workflow["workflowId"]}],
        dueByDate=LATER,
    )
    for number in range(2):
        document = job(team, f"{word} {number}", person, workflow, asked["stepId"], plan)
        document["metadata"] |= {"created": at(number), "updated": at(number + 1)}
        job_id = team.synced(document)["jobId"]
        report(team, word, job_id, document["metadata"]["clientJobId"])
    collection_id = with_parts(team, f"{word} header\n{word} value\n")
    renamed = {"name": f"{word} collection"}
    assert team.put(f"/collections/v1/collection/{collection_id}", json=renamed).is_success
    trigger_id = triggered(team, name=f"{word} trigger", description=f"{word} description", disabled=True)
    team.app.write(fail, team.team_id, f"{word} reason")
    told = {"job_id": job_id, "client_job_id": f"{word} job", "note": f"{word} note", "report_id": new_id()}
    delivery_of(team, trigger_id, **told)
    delivery_of(team, trigger_id, attempt(FAILED), finished_at=now(), **told)
    return team


def job(
    team: Team, word: str, person: Document, workflow: Document, step_id: str, plan: Document
) -> Document:
    """A completed job of the planned work: a form, and in it a step with a file; another step, which was cancelled."""
    files = [put_file(team, file_name=f"{word}.jpg", details=described(team)) for _ in range(2)]
    form = visit(word, "form", person, stepType="FormStep", noteResourceFilenames=files[:1])
    inner = visit(
        word,
        "inner",
        person,
        parentUniqueStepId=form["uniqueStepId"],
        stepId=step_id,
        valueResourceIds=files[1:],
    )
    given_up = visit(word, "cancelled", person, completed=None, cancelled=at(1))
    header = {
        "clientJobId": f"{word} job",
        "jobTitle": f"{word} title",
        "workflowId": workflow["workflowId"],
        "workflowVersionId": workflow["versionId"],
        "workflowName": f"{word} workflow",
        "userId": person["userId"],
        "username": person["username"],
        "metadata": {
            "Order": f"{word} order",
            "ScheduledJobId": plan["jobId"],
            "ScheduledTaskId": plan["tasks"][0]["taskId"],
        },
    }
    return finished_snapshot(**header) | {
        "completedSteps": [{"singleStep": form}, {"singleStep": inner}],
        "cancelledSteps": [{"singleStep": given_up}],
    }


def at(hour: int) -> str:
    return f"2026-03-03T{8 + hour:02}:00:00.000Z"


def visit(word: str, name: str, person: Document, **members: Any) -> Document:
    return {
        "stepId": f"{word} {name} id",
        "uniqueStepId": f"{word} {name} visit",
        "stepTitle": f"{word} {name}",
        "stepDescription": f"{word} description",
        "stepType": "TextStep",
        "stepNumber": 7,
        "metadata": {"tags": f"{word} {name} tag"},
        "started": at(0),
        "completed": at(1),
        "updated": at(1),
        "userId": person["userId"],
        "userName": person["username"],
        "coordinates": {"latitude": 51.5, "longitude": 19.5},
        "note": f"{word} note",
        "values": [f"{word} answer", {"in it": f"{word} answer"}],
        **members,
    }


def report(team: Team, word: str, job_id: str, client_job_id: str) -> None:
    """A report, as the printer leaves it."""
    row = ReportRow(
        report_id=(report_id := new_id()),
        job_id=job_id,
        client_job_id=client_job_id,
        fingerprint=report_id.encode(),
        rev=1,
        template_id=None,
        version_id=None,
        template_name=f"{word} template",
        images="all",
        state=READY,
        failure=None,
        log=None,
        blob_key=f"{team.team_id}/{report_id}",
        size=1,
        pages=1,
        requested_at=now(),
        generated_at=now(),
    )
    team.app.write(
        lambda connection: connection.execute(reports.insert().values(team_id=team.team_id, **row._asdict()))
    )


def fail(connection: Connection, team_id: int, reason: str) -> None:
    """Let the team's triggers have been disabled because nothing could be delivered."""
    failing = {"disabled_reason": reason, "failing_since": now()}
    connection.execute(triggers.update().where(triggers.c.team_id == team_id).values(failing))


class Neighbour(NamedTuple):
    """A team with everything.

    Attributes:
        word: in each of its texts.
        values: what it sees itself.
    """

    team: Team
    word: str
    values: "Values"

    @property
    def secrets(self) -> set[str]:
        """What must be in no answer to anybody else. Addresses without their signatures, which change."""
        leaves = (those for name, those in self.values.items() if _is_leaf(name))
        own = (text for those in leaves for text in texts(those) if is_own(text, self.word))
        return {text.partition("?")[0] for text in own} | {self.word}


@pytest.fixture(scope="module")
def neighbours(app: RunningApp) -> tuple[Neighbour, Neighbour]:
    first, second = (Neighbour(furnished(app, word), word, {}) for word in ("Amber", "Birch"))
    for each in (first, second):
        each.values.update(everything_of(each.team))
    return first, second


# What there is to ask for


class Argument(NamedTuple):
    """An argument of a field: ``Type.field.argument``."""

    name: str
    is_list: bool
    root: str

    @property
    def field(self) -> str:
        return self.name.rpartition(".")[0]


def object_type(name: str) -> GraphQLObjectType:
    found = SCHEMA.type_map[name]
    assert isinstance(found, GraphQLObjectType)
    return found


def objects_in(type_: GraphQLObjectType, known: dict[str, GraphQLObjectType]) -> dict[str, GraphQLObjectType]:
    """The object types that one leads to, itself among them."""
    if type_.name not in known:
        known[type_.name] = type_
        for field in type_.fields.values():
            inner = get_named_type(field.type)
            if isinstance(inner, GraphQLObjectType):
                objects_in(inner, known)
    return known


def arguments() -> Iterator[Argument]:
    """Every argument of every field, with a root field that leads to it."""
    seen = set()
    for root, field in object_type("Query").fields.items():
        below = objects_in(object_type(get_named_type(field.type).name), {})
        of_root = [("Query", root, field)]
        inside = [(type_.name, name, each) for type_ in below.values() for name, each in type_.fields.items()]
        for type_name, name, each in of_root + inside:
            for argument, definition in each.args.items():
                full = f"{type_name}.{name}.{argument}"
                if full not in seen:
                    seen.add(full)
                    is_list = isinstance(get_nullable_type(definition.type), GraphQLList)
                    yield Argument(full, is_list, root)


def asking(root: str, given: Mapping[str, Any]) -> str:
    """A query for everything that lies in a root field.

    Args:
        given: values of arguments; a field that is given some takes no others.
    """
    return f"{{ {_field(object_type('Query'), root, given, ())} }}"


def _field(type_: GraphQLObjectType, name: str, given: Mapping[str, Any], within: tuple[str, ...]) -> str:
    place = f"{type_.name}.{name}."
    own = {key: value for key, value in given.items() if key.startswith(place)}
    own = own or {key: value for key, value in WIDE.items() if key.startswith(place)}
    told = ", ".join(f"{key.removeprefix(place)}: {json.dumps(value)}" for key, value in own.items())
    inner = get_named_type(type_.fields[name].type)
    text = f"{name}({told})" if told else name
    if not isinstance(inner, GraphQLObjectType):
        return text
    # Objects that lie in others of their type are followed once.
    names = [each for each in inner.fields if (*within, inner.name).count(_type_name(inner, each)) < 2]
    return f"{text} {{ {' '.join(_field(inner, each, given, (*within, inner.name)) for each in names)} }}"


def _type_name(type_: GraphQLObjectType, field: str) -> str:
    inner = get_named_type(type_.fields[field].type)
    return inner.name if isinstance(inner, GraphQLObjectType) else ""


# What was answered

Values = dict[str, list[Any]]


def noted(type_: GraphQLObjectType, value: Document, values: Values) -> None:
    """Add what an answer has in each field: ``Type.field`` -> what is there and not empty."""
    for name, told in value.items():
        inner = get_named_type(type_.fields[name].type)
        for each in told if isinstance(told, list) else [told]:
            if each not in (None, "", [], {}):
                values.setdefault(f"{type_.name}.{name}", []).append(each)
                if isinstance(inner, GraphQLObjectType):
                    noted(inner, each, values)


def everything_of(team: Team) -> Values:
    """What the team itself is answered when it asks for everything."""
    values: Values = {}
    for root in object_type("Query").fields:
        answer = asked(team, asking(root, {}), "token").json()
        assert "errors" not in answer, answer
        noted(object_type("Query"), answer["data"], values)
    return values


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, names of members too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from texts([key, each])


def is_own(text: str, word: str) -> bool:
    """Whether no other team has this text."""
    return word in text or text.startswith("http") or _ID.search(text) is not None


def _is_leaf(name: str) -> bool:
    type_name, _, field = name.partition(".")
    return not _type_name(object_type(type_name), field)


def revealed(answer: httpx.Response, secrets: set[str]) -> list[str]:
    said = answer.text
    return sorted(text for text in secrets if text in said)


# Ways to ask

Way = Callable[[Team], tuple[Document, Headers]]


def _with_token(team: Team) -> tuple[Document, Headers]:
    return {}, team.owner.headers


def _with_key(team: Team) -> tuple[Document, Headers]:
    return {"key": team.get("/query/v2/keys").json()[0]["key"]}, {}


def _with_temporary_key(team: Team) -> tuple[Document, Headers]:
    provided: Any = team.app.litestar.dependencies["query_keys"]
    keys: QueryKeys = team.app.call(provided.dependency)
    return {"key": keys.make(team.team_id, now())[0]}, {}


def _as_a_table(team: Team) -> tuple[Document, Headers]:
    return {"csv": "true"}, team.owner.headers


WAYS: dict[str, Way] = {
    "token": _with_token,
    "key": _with_key,
    "temporary key": _with_temporary_key,
    "table": _as_a_table,
}


def asked(team: Team, query: str, way: str) -> httpx.Response:
    parameters, headers = WAYS[way](team)
    response = team.app.http.post(
        "/query/v2/graph", json={"query": query}, params=parameters, headers=headers
    )
    assert response.status_code == 200, response.text
    return response


def given(argument: Argument, values: Values) -> Iterator[Mapping[str, Any]]:
    """Everything of these values that an argument can be given: all at once, or one after the other."""
    those = list(dict.fromkeys(texts(values[COMPARED[argument.name]])))
    for value in [those] if argument.is_list else those:
        yield {argument.name: value}


def compared() -> list[Argument]:
    return [argument for argument in arguments() if argument.name in COMPARED]


# The tests


def test_of_every_argument_it_is_known_what_it_names() -> None:
    names = {argument.name for argument in arguments() if argument.name.rpartition(".")[2] not in PAGING}
    unknown = names - COMPARED.keys() - WIDE.keys()
    assert not unknown, f"say in COMPARED with which field's values these are compared: {sorted(unknown)}"
    assert COMPARED.keys() | WIDE.keys() <= names
    assert object_type("Query").fields.keys() == ROOTS.keys()


def test_everything_is_asked_for_and_there_is_something_of_everything(
    neighbours: tuple[Neighbour, Neighbour],
) -> None:
    types = objects_in(object_type("Query"), {}).values()
    for _, word, values in neighbours:
        for type_ in types:
            for name, field in type_.fields.items():
                there = values.get(f"{type_.name}.{name}")
                assert there, f"say in furnished() what {type_.name}.{name} is of a team"
                if get_named_type(field.type) is GraphQLString:
                    # Else nobody would see whose it is.
                    is_known = all(is_own(text, word) or _TIME.fullmatch(text) for text in there)
                    assert is_known != (f"{type_.name}.{name}" in SHARED), (type_.name, name, there)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_asked_for_nothing_of_another_team_is_answered(
    neighbours: tuple[Neighbour, Neighbour], way: str
) -> None:
    for one, other in (neighbours, reversed(neighbours)):
        for root in ROOTS:
            answer = asked(one.team, asking(root, {}), way)
            assert revealed(answer, other.secrets) == [], root
            assert one.word in answer.text, root


@pytest.mark.parametrize("argument", compared(), ids=lambda argument: argument.name)
def test_whatever_of_another_team_is_named_nothing_of_it_is_answered(
    neighbours: tuple[Neighbour, Neighbour], argument: Argument
) -> None:
    for one, other in (neighbours, reversed(neighbours)):
        found: Values = {}
        for values in given(argument, other.values):
            query = asking(argument.root, values)
            for way in WAYS:
                assert revealed(asked(one.team, query, way), other.secrets) == [], (way, values)
            noted(object_type("Query"), asked(other.team, query, "token").json()["data"], found)
        # They are good for finding something.
        assert found[argument.field]


def test_a_cursor_of_another_team_leads_to_nothing_of_it(neighbours: tuple[Neighbour, Neighbour]) -> None:
    one, other = neighbours
    any_status = {"Query.jobs.status": ["Any"]}
    for values in ({}, any_status):
        seen: Values = {}
        noted(object_type("Query"), asked(other.team, asking("jobs", values), "token").json()["data"], seen)
        for cursor in seen["Job.completedJobCursor"]:
            for order in ("asc", "desc"):
                further = {**values, "Query.jobs.cursor": cursor, "Query.jobs.order": order}
                for way in WAYS:
                    assert revealed(asked(one.team, asking("jobs", further), way), other.secrets) == []


def test_what_a_job_says_of_another_teams_things_leads_to_none_of_them(
    app: RunningApp, neighbours: tuple[Neighbour, Neighbour]
) -> None:
    _, other = neighbours
    team = app.team()
    said = next(iter(asked(other.team, asking("jobs", {}), "token").json()["data"]["jobs"]))
    files = [file["attachmentId"] for file in said["attachments"]]
    named = {key: said[key] for key in ("workflowId", "workflowVersionId", "userId")}
    # The step whose title, tag and type its version of the workflow knows.
    (step_id,) = {each for each in other.values["Step.stepId"] if _ID.fullmatch(each)}
    step = {"stepId": step_id, "valueResourceIds": files}
    plan = {
        "ScheduledJobId": other.values["ScheduledJob.jobId"][0],
        "ScheduledTaskId": other.values["ScheduledTask.taskId"][0],
    }
    document = finished_snapshot(**named, username=None, metadata=plan)
    team.synced(document | {"completedSteps": [{"singleStep": step}]})
    secrets = {text for text in other.secrets if text not in json.dumps([named, step, plan])}
    assert other.word in secrets
    for root in ROOTS:
        for way in WAYS:
            assert revealed(asked(team, asking(root, {}), way), secrets) == [], root
