"""The policy table against the document, and the rule by which it is applied (sections 2.2, 2.4)."""

import pytest

from server.auth.policies import (
    ADDITIONS,
    PERMISSIONS,
    POLICIES,
    SCOPES,
    Policy,
    allows,
    needed,
    scope_segment,
    scopes_for,
)

HOST = "https://www.flow.librestream.com/auth"


def scopes(*names: str) -> frozenset[str]:
    return frozenset(scope_segment(name) for name in names)


def test_there_are_27_policies() -> None:
    assert len(POLICIES) == 27


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("Client_Admin", Policy(("https://accounts.flow.librestream.com/team.admin",), ("OWNER",))),
        ("Job_Modify", Policy((f"{HOST}/job.modify", f"{HOST}/job.admin"), ("OWNER",))),
        (
            "Job_Read",
            Policy((f"{HOST}/job.read", f"{HOST}/job.read_all", f"{HOST}/job.admin"), ("OWNER", "ADMIN")),
        ),
        (
            "Reports_Modify",
            Policy((f"{HOST}//reports.modify", f"{HOST}//reports.admin"), ("OWNER", "ADMIN")),
        ),
        ("Spoke_Client", Policy((f"{HOST}/spoke.client",), ("SPOKE",))),
        ("Team_Admin", Policy((f"{HOST}//team.admin",), ("OWNER", "ADMIN"))),
        (
            "TeamSettings_Read",
            Policy(
                (f"{HOST}/teamsettings.read", f"{HOST}/teamsettings.admin"),
                ("OWNER", "ADMIN", "EDITOR", "APPROVER"),
            ),
        ),
        (
            "Trigger_Execute",
            Policy((f"{HOST}/workflow.execute", f"{HOST}/workflow.admin"), ("OWNER", "ADMIN")),
        ),
        ("Workflow_Approve", Policy((f"{HOST}/workflow.approve",), ("APPROVER",))),
        ("Workflow_Execute", Policy((f"{HOST}/workflow.execute",), ())),
        (
            "Workflow_Read",
            Policy(
                (
                    f"{HOST}/workflow.read",
                    f"{HOST}/workflow.execute",
                    f"{HOST}/workflow.admin",
                    f"{HOST}/spoke.client",
                ),
                ("OWNER", "ADMIN", "EDITOR", "APPROVER", "SPOKE"),
            ),
        ),
    ],
)
def test_a_policy_is_as_the_document_prints_it(name: str, policy: Policy) -> None:
    assert POLICIES[name] == policy


def test_the_additions_are_these_and_no_more() -> None:
    assert ADDITIONS == {
        "Job_Modify": ("MODIFIER",),
        "Job_Read": ("EXECUTOR",),
        "Job_ReadAll": ("DATAVIEWER",),
        "Query_Read": ("DATAVIEWER",),
        "Reports_Read": ("DATAVIEWER",),
        "Schedule_Read": ("EXECUTOR",),
        "TeamSettings_Read": ("EXECUTOR",),
        "Workflow_Execute": ("EXECUTOR", "ADMIN", "OWNER"),
        "Workflow_Read": ("EXECUTOR",),
    }
    assert ADDITIONS.keys() <= POLICIES.keys()


def test_every_permission_of_the_tables_is_known_and_every_known_one_is_in_them() -> None:
    named = {name for policy in POLICIES.values() for name in policy.permissions}
    assert named | {name for names in ADDITIONS.values() for name in names} == PERMISSIONS


@pytest.mark.parametrize("scope", [f"{HOST}//team.admin", f"{HOST}/TEAM.ADMIN", "team.admin", "Team.Admin"])
def test_a_scope_matches_by_its_last_path_segment_without_case(scope: str) -> None:
    assert allows("Team_Admin", scopes(scope), frozenset({"ADMIN"}))


@pytest.mark.parametrize("scope", ["admin", "team.admin/x", "team.admins", ""])
def test_a_scope_does_not_match_by_a_part_of_its_segment(scope: str) -> None:
    assert not allows("Team_Admin", scopes(scope), frozenset({"ADMIN"}))


def test_a_policy_takes_a_scope_and_a_permission() -> None:
    assert allows("Job_Modify", scopes("job.admin"), frozenset({"OWNER"}))
    assert not allows("Job_Modify", scopes("job.admin"), frozenset({"ADMIN"}))
    assert not allows("Job_Modify", scopes("job.read"), frozenset({"OWNER"}))
    assert not allows("Job_Modify", frozenset(), frozenset({"OWNER"}))


def test_an_empty_list_of_permissions_means_executors_and_those_above() -> None:
    for permission in PERMISSIONS:
        allowed = allows("Workflow_Execute", scopes("workflow.execute"), frozenset({permission}))
        assert allowed == (permission in {"EXECUTOR", "ADMIN", "OWNER"})


def test_policy_names_compare_without_case() -> None:
    assert needed("job_readall") == needed("Job_ReadAll")


def test_an_unknown_policy_is_an_error_and_not_a_pass() -> None:
    with pytest.raises(KeyError):
        allows("Job_Write", SCOPES, PERMISSIONS)


def test_scopes_for_a_permission_are_those_that_open_something() -> None:
    assert scopes_for({"SPOKE"}) == {"spoke.client", "workflow.read", "workflow.execute", "workflow.admin"}
    assert scopes_for({"MODIFIER"}) == {"job.modify", "job.admin"}
    assert "team.admin" not in scopes_for({"EXECUTOR"})
    assert scopes_for(()) == frozenset()
    assert scopes_for(PERMISSIONS) == SCOPES
