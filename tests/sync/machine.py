"""What may happen in the world, in any order: the state machine that both property suites run."""

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sync.model import FATES, JOB, World
from tests.sync.oracle import CANCELLED, COMPLETED, CURRENT
from tests.sync.servers import Server

#: Runs are the same each time; budgets are set where the machines are run.
REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)

SKEWS = (timedelta(), timedelta(hours=5), timedelta(days=-2))
STEPS = ("a", "b")
META = "k"

devices = st.sampled_from([0, 1, 2, 0, 1])
#: Most requests arrive, most losses are of replies.
fates = st.sampled_from(["arrives", "arrives", "arrives", "lost reply", "lost reply", *FATES])


class Fleet(RuleBasedStateMachine):
    """Three tablets, a legacy client and an operator on one job. Every rule is one thing that happens."""

    world: World

    def server(self) -> Server:
        """The server to run against."""
        raise NotImplementedError

    @initialize(
        skews=st.permutations(SKEWS),
        silent=st.sampled_from([None, 0, 1]),
        respelling=st.sampled_from([None, 0, 1]),
    )
    def begin(self, skews: list[timedelta], silent: int | None, respelling: int | None) -> None:
        self.world = World(self.server(), tuple(skews), silent, respelling)
        self.world.devices[0].start()
        self.world.devices[0].push("arrives", minimal=False)

    # Work.

    @rule(device=devices, key=st.sampled_from(STEPS), phase=st.sampled_from([CURRENT, COMPLETED, CANCELLED]))
    def works_on_a_step(self, device: int, key: str, phase: int) -> None:
        self.world.tick()
        self.world.devices[device].work_on(key, phase, self.world.value(), photo=False)

    @rule(device=devices, key=st.sampled_from(STEPS))
    def takes_a_photo(self, device: int, key: str) -> None:
        self.world.tick()
        self.world.devices[device].work_on(key, COMPLETED, self.world.value(), photo=True)

    @rule(
        device=devices,
        key=st.sampled_from(STEPS),
        name=st.sampled_from(["completedSteps", "cancelledSteps"]),
    )
    def moves_a_step_and_changes_nothing_else(self, device: int, key: str, name: str) -> None:
        self.world.tick()
        self.world.devices[device].move(key, name)

    @rule(device=devices, removes=st.sampled_from([False, False, True]))
    def sets_metadata(self, device: int, removes: bool) -> None:
        self.world.tick()
        tablet = self.world.devices[device]
        value = None if removes else self.world.value()
        tablet.decide(lambda: tablet.tablet.set_metadata(JOB, META, value))

    @rule(device=devices)
    def takes_an_edit_of_metadata_back(self, device: int) -> None:
        self.world.tick()
        tablet = self.world.devices[device]
        held = tablet.knowledge.held.get(f"meta:{META}")
        if held is not None and tablet.job is not None:
            tablet.decide(lambda: tablet.tablet.set_metadata(JOB, META, held.value))

    @rule(device=devices, status=st.sampled_from(["InProgress", "Paused", "Completed"]))
    def sets_the_status(self, device: int, status: str) -> None:
        self.world.tick()
        tablet = self.world.devices[device]
        tablet.decide(lambda: tablet.tablet.set_status(JOB, status, str(self.world.value())))

    @rule(device=devices)
    def aborts(self, device: int) -> None:
        self.world.tick()
        tablet = self.world.devices[device]
        tablet.decide(lambda: tablet.tablet.abort(JOB, str(self.world.value())))

    @rule(device=devices, which=st.integers(0, 3))
    def pulls_and_confirms_what_is_shown_in_conflict(self, device: int, which: int) -> None:
        self.world.tick()
        self.world.devices[device].pull()
        self.world.devices[device].confirm(which)

    @rule(device=devices, skew=st.sampled_from(SKEWS))
    def corrects_its_clock(self, device: int, skew: timedelta) -> None:
        self.world.devices[device].tablet.skew = skew

    # Network.

    @rule(device=devices, fate=fates, minimal=st.sampled_from([False, False, True]))
    def pushes(self, device: int, fate: Any, minimal: bool) -> None:
        self.world.tick()
        self.world.devices[device].push(fate, minimal)

    @rule(device=devices)
    def pushes_and_pulls(self, device: int) -> None:
        self.world.tick()
        self.world.devices[device].push("lost reply", minimal=False)
        self.world.devices[device].pull()

    @rule(device=devices)
    def pulls(self, device: int) -> None:
        self.world.tick()
        self.world.devices[device].pull()

    @precondition(lambda self: self.world.under_way)
    @rule()
    def delayed_requests_arrive_together(self) -> None:
        self.world.tick()
        self.world.deliver_delayed()

    @precondition(lambda self: self.world.accepted)
    @rule(index=st.integers(0, 20))
    def an_old_request_arrives_again(self, index: int) -> None:
        self.world.tick()
        self.world.repeat(index)

    # A client without the envelope.

    @rule(key=st.sampled_from(STEPS), adopts=st.booleans())
    def a_legacy_client_completes_a_step(self, key: str, adopts: bool) -> None:
        self.world.tick()
        self.world.legacy.complete_step(key, self.world.value())
        self.world.legacy.push(adopts)

    @rule(adopts=st.booleans())
    def a_legacy_client_sets_metadata(self, adopts: bool) -> None:
        self.world.tick()
        self.world.legacy.set_metadata(META, self.world.value())
        self.world.legacy.push(adopts)

    # An operator.

    @rule(scope=st.sampled_from([f"meta:{META}", "status"]))
    def the_operator_edits(self, scope: str) -> None:
        self.world.tick()
        self.world.operate("edit", scope, self.world.value())

    @rule()
    def the_operator_aborts(self) -> None:
        self.world.tick()
        self.world.operate("abort")

    @rule()
    def the_operator_reopens(self) -> None:
        self.world.tick()
        self.world.operate("reopen")

    def teardown(self) -> None:
        """However it went, everybody ends with the same job."""
        if hasattr(self, "world"):
            self.world.quiesce()
