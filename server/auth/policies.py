"""Policies: which scopes of a token and which permissions of its subject a route takes (section 2.4).

A request is authorized if its token holds at least one of the policy's scopes and its subject at least one
of the permissions (section 2.2.1).
"""

from collections.abc import Iterable
from typing import NamedTuple

#: Values of a route's ``policy`` beside the names below: no token at all; any valid token, whatever it holds.
PUBLIC = "public"
ANY_TOKEN = "any valid token"  # noqa: S105  (a marker, not a secret)


class Policy(NamedTuple):
    """One policy as the document prints it."""

    scopes: tuple[str, ...]
    permissions: tuple[str, ...]


#: Section 2.4 word for word, its oddities included: other hosts, doubled slashes, an empty list.
POLICIES: dict[str, Policy] = {
    "Client_Admin": Policy(
        ("https://accounts.flow.librestream.com/team.admin",),
        ("OWNER",),
    ),
    "Job_Modify": Policy(
        (
            "https://www.flow.librestream.com/auth/job.modify",
            "https://www.flow.librestream.com/auth/job.admin",
        ),
        ("OWNER",),
    ),
    "Job_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/job.read",
            "https://www.flow.librestream.com/auth/job.read_all",
            "https://www.flow.librestream.com/auth/job.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Job_ReadAll": Policy(
        (
            "https://www.flow.librestream.com/auth/job.read_all",
            "https://www.flow.librestream.com/auth/job.modify",
            "https://www.flow.librestream.com/auth/job.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Query_Admin": Policy(
        ("https://www.flow.librestream.com/auth/query.admin",),
        ("OWNER", "ADMIN"),
    ),
    "Query_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/query.read",
            "https://www.flow.librestream.com/auth/query.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Reports_Admin": Policy(
        ("https://www.flow.librestream.com/auth/reports.admin",),
        ("OWNER", "ADMIN"),
    ),
    "Reports_Create": Policy(
        (
            "https://www.flow.librestream.com/auth/reports.create",
            "https://www.flow.librestream.com/auth/reports.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR"),
    ),
    "Reports_Modify": Policy(
        (
            "https://www.flow.librestream.com/auth//reports.modify",
            "https://www.flow.librestream.com/auth//reports.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Reports_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/reports.read",
            "https://www.flow.librestream.com/auth/reports.create",
            "https://www.flow.librestream.com/auth/reports.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR"),
    ),
    "Schedule_Admin": Policy(
        ("https://www.flow.librestream.com/auth/schedule.admin",),
        ("OWNER", "ADMIN"),
    ),
    "Schedule_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/schedule.read",
            "https://www.flow.librestream.com/auth/schedule.read_all",
            "https://www.flow.librestream.com/auth/schedule.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Schedule_ReadAll": Policy(
        (
            "https://www.flow.librestream.com/auth/schedule.read_all",
            "https://www.flow.librestream.com/auth/schedule.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Spoke_Client": Policy(
        ("https://www.flow.librestream.com/auth/spoke.client",),
        ("SPOKE",),
    ),
    "Team_Admin": Policy(
        ("https://www.flow.librestream.com/auth//team.admin",),
        ("OWNER", "ADMIN"),
    ),
    "TeamSettings_Admin": Policy(
        ("https://www.flow.librestream.com/auth/teamsettings.admin",),
        ("OWNER", "ADMIN"),
    ),
    "TeamSettings_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/teamsettings.read",
            "https://www.flow.librestream.com/auth/teamsettings.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR", "APPROVER"),
    ),
    "Trigger_Admin": Policy(
        ("https://www.flow.librestream.com/auth/trigger.admin",),
        ("OWNER", "ADMIN"),
    ),
    "Trigger_Execute": Policy(
        (
            "https://www.flow.librestream.com/auth/workflow.execute",
            "https://www.flow.librestream.com/auth/workflow.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Trigger_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/trigger.read",
            "https://www.flow.librestream.com/auth/trigger.admin",
        ),
        ("OWNER", "ADMIN"),
    ),
    "Workflow_Admin": Policy(
        ("https://www.flow.librestream.com/auth/workflow.admin",),
        ("OWNER", "ADMIN"),
    ),
    "Workflow_Approve": Policy(
        ("https://www.flow.librestream.com/auth/workflow.approve",),
        ("APPROVER",),
    ),
    "Workflow_Create": Policy(
        (
            "https://www.flow.librestream.com/auth/workflow.create",
            "https://www.flow.librestream.com/auth/workflow.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR"),
    ),
    "Workflow_Delete": Policy(
        (
            "https://www.flow.librestream.com/auth/workflow.delete",
            "https://www.flow.librestream.com/auth/workflow.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR"),
    ),
    "Workflow_Execute": Policy(
        ("https://www.flow.librestream.com/auth/workflow.execute",),
        (),
    ),
    "Workflow_Modify": Policy(
        (
            "https://www.flow.librestream.com/auth/workflow.modify",
            "https://www.flow.librestream.com/auth/workflow.admin",
        ),
        ("OWNER", "ADMIN", "EDITOR"),
    ),
    "Workflow_Read": Policy(
        (
            "https://www.flow.librestream.com/auth/workflow.read",
            "https://www.flow.librestream.com/auth/workflow.execute",
            "https://www.flow.librestream.com/auth/workflow.admin",
            "https://www.flow.librestream.com/auth/spoke.client",
        ),
        ("OWNER", "ADMIN", "EDITOR", "APPROVER", "SPOKE"),
    ),
}

#: Permissions that the document leaves out and without which its own routes cannot be used: the people who
#: execute workflows need to read them, their schedule and their jobs (their own work only, which the routes
#: see to); DATAVIEWER and MODIFIER appear in section 13 and under no policy. An empty list means the people
#: who do the work and those above them.
ADDITIONS: dict[str, tuple[str, ...]] = {
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

#: Every permission there is (sections 2.4, 13.4), upper case.
PERMISSIONS = frozenset(
    {"OWNER", "ADMIN", "EDITOR", "APPROVER", "DATAVIEWER", "MODIFIER", "EXECUTOR", "SPOKE"}
)


def scope_segment(scope: str) -> str:
    """What a scope is compared by: its last path segment in lower case.

    The document spells one scope with different hosts and slashes; ``https://…/auth//team.admin`` and
    ``team.admin`` are the same.
    """
    return scope.rpartition("/")[2].lower()


#: Policy name in lower case -> the scope segments and permissions of which one each is needed.
_NEEDED: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    name.lower(): (
        frozenset(map(scope_segment, policy.scopes)),
        frozenset(policy.permissions) | frozenset(ADDITIONS.get(name, ())),
    )
    for name, policy in POLICIES.items()
}
# The hot path looks names up as the routes spell them.
_NEEDED.update({name: _NEEDED[name.lower()] for name in POLICIES})

#: Segments of every scope a policy takes.
SCOPES = frozenset().union(*(scopes for scopes, _ in _NEEDED.values()))


def needed(policy: str) -> tuple[frozenset[str], frozenset[str]]:
    """The scope segments and the permissions of which ``policy`` takes one each.

    Raises:
        KeyError: there is no such policy.
    """
    return _NEEDED.get(policy) or _NEEDED[policy.lower()]


def allows(policy: str, scopes: frozenset[str], permissions: frozenset[str]) -> bool:
    """Whether ``policy`` is met.

    Args:
        policy: a name of :data:`POLICIES`, in any case.
        scopes: the token's, as segments.
        permissions: the subject's, in upper case.

    Raises:
        KeyError: there is no such policy.
    """
    takes_scopes, takes_permissions = needed(policy)
    return not (takes_scopes.isdisjoint(scopes) or takes_permissions.isdisjoint(permissions))


def scopes_for(permissions: Iterable[str]) -> frozenset[str]:
    """The segments of every scope with which ``permissions`` satisfy some policy."""
    held = frozenset(permissions)
    return frozenset().union(*(scopes for scopes, takes in _NEEDED.values() if not takes.isdisjoint(held)))
