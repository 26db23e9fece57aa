"""How often signing in may fail: sliding windows per account and per address, in memory.

Per process, so that a server of four worker processes allows at most four times as much; guessing stays
hopeless, and no database is needed to refuse.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WINDOW_SECONDS = 300.0
ACCOUNT_FAILURES = 10
#: More than an account's: a depot of a hundred tablets shares one address.
ADDRESS_FAILURES = 50
#: Keys remembered per window; beyond it the least recently failed is forgotten.
MAX_KEYS = 20_000


class TooManyAttempts(Exception):
    """Too many failures; ``retry_after`` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many attempts, retry after {retry_after} s")
        self.retry_after = retry_after


class _Window:
    """The times of recent failures by key."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failures(self, key: str) -> int:
        """How many failures the window holds."""
        times = self._failures.get(key)
        if times is None:
            return 0
        begin = self._clock() - WINDOW_SECONDS
        while times and times[0] <= begin:
            times.popleft()
        if not times:
            del self._failures[key]
        return len(times)

    def retry_after(self, key: str) -> int | None:
        """Seconds until another attempt is allowed; None when it is now."""
        if self.failures(key) < self._limit:
            return None
        return max(1, math.ceil(self._failures[key][0] + WINDOW_SECONDS - self._clock()))

    def failed(self, key: str) -> None:
        """Count a failure. The window keeps the latest ones, as many as the limit."""
        times = self._failures.setdefault(key, deque(maxlen=self._limit))
        times.append(self._clock())
        self._failures.move_to_end(key)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)


class SignInLimits:
    """The limits of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = _Window(ACCOUNT_FAILURES, clock)
        self._addresses = _Window(ADDRESS_FAILURES, clock)
        self._under_way: dict[str, int] = {}

    @contextmanager
    def attempt(self, account: str, address: str, guessable: bool = True) -> Iterator["Attempt"]:
        """One attempt to sign in. It counts as a failure if the block sets ``failed``; an outage is none.

        An attempt counts against its account while it is under way: a hundred guesses sent at once would
        otherwise all be checked before the first of them failed. Not so for generated secrets, which nobody
        guesses: there it would only refuse an integration that starts with many workers at once.

        Args:
            account: the key of the account, existing or not.
            address: the client's address or group of addresses.
            guessable: whether people choose, or can type, the secret.

        Raises:
            TooManyAttempts: the account or the address is over its limit.
        """
        waits = [self._accounts.retry_after(account), self._addresses.retry_after(address)]
        known = [wait for wait in waits if wait is not None]
        if known:
            raise TooManyAttempts(max(known))
        under_way = self._under_way.get(account, 0)
        if guessable and self._accounts.failures(account) + under_way >= ACCOUNT_FAILURES:
            raise TooManyAttempts(1)
        self._under_way[account] = under_way + 1
        attempt = Attempt()
        try:
            yield attempt
        finally:
            self._end(account)
            if attempt.failed:
                self._accounts.failed(account)
                self._addresses.failed(address)

    def _end(self, account: str) -> None:
        remaining = self._under_way[account] - 1
        if remaining:
            self._under_way[account] = remaining
        else:
            del self._under_way[account]


class Attempt:
    """The outcome of an attempt, as far as it is known. ``failed`` is set by whoever checks the secret."""

    __slots__ = ("failed",)

    def __init__(self) -> None:
        self.failed = False
