"""Team settings (chapter 11): their types, their defaults, and what the server does about them."""

import json

import pytest

from storage.queries.team_settings import DEFAULTS
from tests.support.app import Document, Team, finished_snapshot, problem, snapshot

ALL = "/teamsettings/v1/"


def set_to(team: Team, **values: object) -> None:
    response = team.post(ALL, json=values)
    assert response.status_code == 200, response.text


def template(team: Team) -> str:
    """The id of a new report template."""
    body = {"name": "Inspection", "bodyContent": "<p>{{ job.jobTitle }}</p>"}
    return str(team.post("/reporttemplates/v1/content", json=body).json()["reportTemplateId"])


def test_a_new_team_has_the_fifteen_settings_of_the_document_at_their_defaults(team: Team) -> None:
    settings = team.get(ALL).json()
    assert list(settings) == list(DEFAULTS)
    assert len(settings) == 15
    assert settings == DEFAULTS
    assert settings["DisableJobRestart"] is False
    assert settings["DefaultTimezone"] == "Etc/UTC"


def test_setting_some_of_them_keeps_the_others_also_inside_an_object(team: Team) -> None:
    set_to(team, DisableJobRestart=True, AutoDownload={"WorkflowUpdateLapsedTime": 30})
    set_to(team, EnableJobNaming=True)
    assert team.get(ALL).json() == {
        **DEFAULTS,
        "DisableJobRestart": True,
        "EnableJobNaming": True,
        "AutoDownload": {"WorkflowUpdateMode": "Optional", "WorkflowUpdateLapsedTime": 30},
    }


def test_the_answer_to_a_change_is_all_settings_as_they_are_then(team: Team) -> None:
    assert team.post(ALL, json={"GoBackReason": "required"}).json() == {
        **DEFAULTS,
        "GoBackReason": "Required",
    }


def test_setting_to_defaults_undoes_every_change(team: Team) -> None:
    set_to(team, DisableJobRestart=True, Reports={"DefaultReport": template(team)})
    response = team.post("/teamsettings/v1/defaults")
    assert response.status_code == 200
    assert response.json() == team.get(ALL).json() == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DisableJobRestart", b"false"),
        ("disablejobrestart", b"false"),
        ("AutoDeviceSignOut", b"null"),
        ("DefaultTimezone", b'"Etc/UTC"'),
        ("Reports", b'{"DefaultReport":null}'),
        ("Reports.DefaultReport", b"null"),
        ("AutoDownload.WorkflowUpdateMode", b'"Optional"'),
    ],
)
def test_one_setting_is_answered_as_its_bare_json_value(sqlite_team: Team, key: str, value: bytes) -> None:
    response = sqlite_team.get(f"/teamsettings/v1/{key}")
    assert (response.status_code, response.content) == (200, value)


@pytest.mark.parametrize("key", ["Nothing", "Reports.Nothing", "DisableJobRestart.x", "Reports."])
def test_a_setting_that_does_not_exist_is_404_with_the_names_there_are(sqlite_team: Team, key: str) -> None:
    assert (
        "DisableJobRestart"
        in problem(sqlite_team.get(f"/teamsettings/v1/{key}"), 404, "no-such-setting")["detail"]
    )


def test_unknown_keys_are_refused_all_named_and_nothing_is_set(team: Team) -> None:
    body = {"DisableJobRestart": True, "Zeta": 1, "AutoDownload": {"Alpha": 1, "WorkflowUpdateLapsedTime": 5}}
    refused = problem(team.post(ALL, json=body), 422, "unknown-setting", "AutoDownload.Alpha")
    assert refused["unknown"] == ["AutoDownload.Alpha", "Zeta"]
    assert team.get(ALL).json() == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DisableJobRestart", 1),
        ("DisableJobRestart", None),
        ("DisableJobRestart", "yes"),
        ("AutoDeviceSignOut", -1),
        ("AutoDeviceSignOut", 1.5),
        ("AutoDeviceSignOut", True),
        ("AutoDownload", 5),
        ("AutoDownload", None),
        ("DefaultTimezone", "Mars/Olympus"),
        ("DefaultTimezone", "../etc/passwd"),
        ("DefaultTimezone", None),
        ("GoBackReason", "Sometimes"),
        ("Reports", []),
        ("RemoteExpertSolution", "a\nb"),
        ("RemoteExpertSolution", ""),
        ("WorkflowApproverMode", 2),
        ("WorkflowApproverMode", True),
    ],
)
def test_a_value_of_another_type_is_refused_and_named(sqlite_team: Team, key: str, value: object) -> None:
    problem(sqlite_team.post(ALL, json={key: value, "SupportsOnsight": True}), 422, "invalid-body", key)
    assert sqlite_team.get(ALL).json() == DEFAULTS


def test_booleans_may_come_as_strings_and_keys_in_any_case(sqlite_team: Team) -> None:
    set_to(sqlite_team, disablejobrestart="True", SUPPORTSONSIGHT="false")
    assert sqlite_team.get("/teamsettings/v1/DisableJobRestart").json() is True


def test_the_default_report_is_a_template_of_the_team_that_is_not_archived(team: Team) -> None:
    live, archived, foreign = template(team), template(team), template(team.app.team())
    assert team.delete(f"/reporttemplates/v1/{archived}").status_code == 200
    set_to(team, Reports={"DefaultReport": live})
    for wrong in (archived, foreign, "nothing", live.upper() + "x"):
        body = {"Reports": {"DefaultReport": wrong}, "SupportsOnsight": True}
        problem(team.post(ALL, json=body), 422, "unknown-report-template", "Reports.DefaultReport")
    assert team.get(ALL).json() == {**DEFAULTS, "Reports": {"DefaultReport": live}}
    set_to(team, reports={"defaultreport": None})
    assert team.get(ALL).json() == DEFAULTS


def test_all_settings_can_be_sent_back_as_they_were_read(team: Team) -> None:
    set_to(team, Reports={"DefaultReport": template(team)}, AutoDeviceSignOut=5)
    read = team.get(ALL).json()
    assert team.post(ALL, json=read).json() == read


def test_archiving_the_default_report_empties_the_setting(team: Team) -> None:
    default = template(team)
    set_to(team, Reports={"DefaultReport": default}, SupportsOnsight=True)
    assert team.delete(f"/reporttemplates/v1/{default}").status_code == 200
    assert team.get(ALL).json() == {**DEFAULTS, "SupportsOnsight": True}


def test_settings_of_one_team_are_not_those_of_another(app_teams: tuple[Team, Team]) -> None:
    one, other = app_teams
    set_to(one, DisableJobRestart=True)
    assert other.get(ALL).json() == DEFAULTS


@pytest.fixture
def app_teams(team: Team) -> tuple[Team, Team]:
    return team, team.app.team()


# What the server does


def abandoned(reason: str | None) -> Document:
    return finished_snapshot(status="Abandoned", abandonReason=reason)


def flags(answer: Document) -> list[str]:
    return list(answer["sync"].get("flags", []))


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_a_job_abandoned_without_the_required_reason_syncs_and_is_flagged(
    team: Team, reason: str | None
) -> None:
    set_to(team, RequiresAbandonReason=True)
    document = abandoned(reason)
    answer = team.synced(document)
    assert answer["sync"]["action"] == "created"
    assert answer["metadata"]["status"] == "Abandoned"
    assert flags(answer) == ["abandon-reason-missing"]
    assert flags(team.job(document["metadata"]["clientJobId"])) == ["abandon-reason-missing"]


def test_the_flag_goes_when_the_reason_comes(team: Team) -> None:
    set_to(team, RequiresAbandonReason=True)
    document = abandoned(None)
    team.synced(document)
    document["metadata"] |= {"abandonReason": "no access", "updated": "2025-03-04T10:00:01.000Z"}
    assert flags(team.synced(document)) == []


@pytest.mark.parametrize(("setting", "reason"), [(False, None), (True, "no access")])
def test_nothing_is_flagged_without_the_setting_or_with_a_reason(
    sqlite_team: Team, setting: bool, reason: str | None
) -> None:
    set_to(sqlite_team, RequiresAbandonReason=setting)
    answer = sqlite_team.synced(abandoned(reason))
    assert "flags" not in answer["sync"]


def test_a_completed_job_needs_no_reason(sqlite_team: Team) -> None:
    set_to(sqlite_team, RequiresAbandonReason=True)
    assert flags(sqlite_team.synced(finished_snapshot(status="Completed", abandonReason=None))) == []


@pytest.mark.parametrize(("title", "flagged"), [(None, True), (" ", True), ("Pump 7", False)])
def test_with_job_naming_a_job_without_a_name_is_flagged(
    sqlite_team: Team, title: str | None, flagged: bool
) -> None:
    set_to(sqlite_team, EnableJobNaming=True)
    assert flags(sqlite_team.synced(snapshot(jobTitle=title))) == (["job-name-missing"] if flagged else [])


def test_an_operators_change_keeps_a_flag_that_still_holds(team: Team) -> None:
    set_to(team, RequiresAbandonReason=True)
    document = abandoned(None)
    team.synced(document)
    path = f"/jobs/v1/{document['metadata']['clientJobId']}/metadata"
    assert flags(team.post(path, json={"site": "north"}).json()) == ["abandon-reason-missing"]


def test_finished_jobs_are_not_reopened_when_restarting_is_disabled(team: Team) -> None:
    document = snapshot()
    name = document["metadata"]["clientJobId"]
    team.synced(document)
    assert team.post(f"/jobs/v1/{name}/abort").status_code == 200
    set_to(team, DisableJobRestart=True)
    problem(team.post(f"/jobs/v1/{name}/reopen"), 409, "restart-disabled")
    assert team.job(name)["metadata"]["status"] == "Aborted"
    set_to(team, DisableJobRestart=False)
    assert team.post(f"/jobs/v1/{name}/reopen").status_code == 200


def test_a_restart_from_a_device_is_merged_and_flagged(team: Team) -> None:
    set_to(team, DisableJobRestart=True)
    document = finished_snapshot(status="Completed")
    document["sync"] = {"installId": "6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a2", "pushSeq": 1}
    done = team.synced(document)
    assert flags(done) == []
    document["metadata"] |= {"status": "InProgress", "updated": "2030-03-04T10:00:01.000Z"}
    document["sync"] |= {"pushSeq": 2, "base": done["sync"]["etag"]}
    again = team.synced(document)
    assert again["metadata"]["status"] == "InProgress"
    assert flags(again) == ["job-restarted"]


@pytest.mark.parametrize(
    ("setting", "sent_at", "warned"),
    [
        (True, "2001-01-01T00:00:00.000Z", True),
        (False, "2001-01-01T00:00:00.000Z", False),
        (True, None, False),
    ],
)
def test_a_device_whose_clock_is_off_is_warned_in_the_answer_to_its_sync(
    sqlite_team: Team, setting: bool, sent_at: str | None, warned: bool
) -> None:
    set_to(sqlite_team, CheckDeviceTime=setting)
    document = snapshot()
    envelope = {"installId": "6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a3", "pushSeq": 1, "clientSentAt": sent_at}
    document["sync"] = {key: value for key, value in envelope.items() if value is not None}
    for headers in ({}, {"Prefer": "return=minimal"}):
        answer = sqlite_team.synced({**document, "metadata": {**document["metadata"]}}, headers=headers)
        document["sync"]["pushSeq"] += 1
        assert answer["sync"].get("warnings", []) == (["device-clock"] if warned else [])
        assert (abs(answer["sync"]["clockOffsetSeconds"]) > 120) == (sent_at is not None)


def test_the_meaning_of_every_setting_is_in_the_openapi_document(sqlite_team: Team) -> None:
    document = sqlite_team.app.http.get("/schema/openapi.json").json()
    text = json.dumps(document["paths"]["/teamsettings/v1"]["post"])
    for key, value in DEFAULTS.items():
        for name in [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]:
            assert f"`{name}`" in text
