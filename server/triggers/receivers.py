"""Where webhooks may go: to public addresses, at ports the operator names, and nowhere else.

Whoever may write a trigger chooses an address that this server then calls from inside its network. So an address
is read strictly, in the one spelling that nobody reads differently; a name is resolved once, and what it resolves
to is what is connected to (:mod:`server.triggers.webhooks`).
"""

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

MAX_URL = 2000
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_NAME = 253
_LOOPBACK = IPv4Address("127.0.0.1")
#: Printable ASCII but what programs disagree about.
_URL = re.compile(r"[!-~]+")
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]{1,5}))?")
#: Names that hang hold a thread each, of their own: files and mails use others. A team holds a few of them at most, so
#: that its names do not hold up those of others.
_RESOLVERS, _RESOLVERS_EACH = 32, 2
#: How long a free resolver is waited for, and then the name.
WAIT_SECONDS, RESOLVE_SECONDS = 4.0, 8.0
#: A name that led nowhere is not asked for again so soon.
_LOST_SECONDS = 60.0
_MAX_LOST = 10_000

# Python 3.11's is_global takes some addresses for public that lead back inside: those that carry an IPv4 address
# (64:ff9b::/96, 2002::/16, ::/96, 2001::/32), 192.0.0.192, fec0::1 and multicast.
_IPV6_PUBLIC = IPv6Network("2000::/3")
_IPV6_NOT = [IPv6Network(each) for each in ("2002::/16", "2001::/23", "2001:db8::/32", "3fff::/20")]
_IPV4_NOT = [
    IPv4Network(each)
    # The last one is a public address by which Azure serves its machines what only they may know.
    for each in ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10", "198.18.0.0/15", "168.63.129.16/32")
]

Address = IPv4Address | IPv6Address


class ForbiddenReceiver(Exception):
    """Webhooks do not go there; the text says why, for people."""


class NoResolver(OSError):
    """All that resolve names are busy. This says nothing about the name."""


class Target(NamedTuple):
    """An address, taken apart once: what is checked is what is used.

    Attributes:
        host: a name in lower case, or an address without brackets.
        path: with the query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class Receivers:
    """What the operator's settings allow.

    Args:
        networks: that are allowed although they are not public.
        ports: that are allowed.
        wait_seconds: how long a free resolver is waited for.
        resolve_seconds: how long a name may take after that.

    Raises:
        ValueError: one of them is none.
    """

    def __init__(
        self,
        networks: Iterable[str] = (),
        ports: Iterable[str] = ("443",),
        *,
        wait_seconds: float = WAIT_SECONDS,
        resolve_seconds: float = RESOLVE_SECONDS,
    ) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._ports = {int(port) for port in ports}
        if not self._ports <= set(range(1, 65536)):
            raise ValueError("a port is a number from 1 to 65535")
        self._wait_seconds = wait_seconds
        self._resolve_seconds = resolve_seconds
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolver")
        self._all = asyncio.Semaphore(_RESOLVERS)
        self._of_teams: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()
        #: Names that led nowhere: until when (monotonic) that is believed, and why.
        self._lost: dict[str, tuple[float, str]] = {}

    def check_url(self, url: str) -> None:
        """Refuse what can be refused without asking for the name.

        Raises:
            ForbiddenReceiver: it is not a web address, or not one that webhooks may go to.
        """
        self.target(url)

    def target(self, url: str) -> Target:
        """The parts of an address.

        Raises:
            ForbiddenReceiver: as :meth:`check_url`.
        """
        if len(url) > MAX_URL:
            raise ForbiddenReceiver(f"The address is longer than {MAX_URL} characters.")
        if not _URL.fullmatch(url) or "\\" in url:
            raise ForbiddenReceiver(
                "The address must be written in ASCII without blanks: a name as xn--…, a path in %XX."
            )
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ForbiddenReceiver("This is not a web address.") from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise ForbiddenReceiver("The address must begin with https://.")
        if "@" in parts.netloc:
            raise ForbiddenReceiver("The address must not hold a user name or password; use a header.")
        if "#" in url:
            raise ForbiddenReceiver("The address must not have a fragment (#).")
        authority = _AUTHORITY.fullmatch(parts.netloc.lower())
        if authority is None:
            raise ForbiddenReceiver("This is not a web address.")
        name, ipv6 = authority["name"], authority["ipv6"]
        host = self._ipv6(ipv6) if ipv6 is not None else self._name(name)
        port = int(authority["port"] or _DEFAULT_PORTS[parts.scheme])
        if port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise ForbiddenReceiver(f"Webhooks do not go to port {port}; allowed here: {allowed}.")
        if parts.scheme == "http" and port == 443:
            raise ForbiddenReceiver("Port 443 is spoken to with https:// only.")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port, path)

    def _ipv6(self, text: str) -> str:
        # A zone (%) means an interface of this machine.
        if "%" in text:
            raise ForbiddenReceiver("The address must not name a zone (%).")
        try:
            address = IPv6Address(text)
        except ValueError:
            raise ForbiddenReceiver("What stands in brackets is not an IPv6 address.") from None
        self._check(address)
        return str(address)

    def _name(self, host: str) -> str:
        """A name, or an IPv4 address in the one spelling that is accepted."""
        labels = host.split(".")
        if len(host) > _MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
            raise ForbiddenReceiver("The address holds no valid name of a host.")
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
            # Resolvers take 127.1, 0177.0.0.1, 0x7f.1 and 2130706433 for addresses, each in its own way.
            try:
                address = IPv4Address(host)
            except ValueError:
                raise ForbiddenReceiver("Write an IPv4 address as four numbers, like 192.0.2.7.") from None
            self._check(address)
        elif labels[-1] == "localhost":
            self._check(_LOOPBACK)
        return host

    async def resolve(self, host: str, port: int, team_id: int = 0) -> list[str]:
        """The addresses of a host (see :class:`Target`), all of which may be connected to.

        Args:
            team_id: for whom; a team has a few names resolved at once.

        Raises:
            ForbiddenReceiver: one of them may not: a name with a public and a private address is a trap.
            NoResolver: it was not asked for, as too many others are.
            OSError: the name does not resolve, or did not a moment ago.
        """
        until, why = self._lost.get(host, (0.0, ""))
        if time.monotonic() < until:
            raise OSError(why)
        job = await self._asking(host, port, team_id)
        try:
            async with asyncio.timeout(self._resolve_seconds):
                found = await asyncio.wrap_future(job)
        except TimeoutError:
            raise self._lose(host, f"no answer within {self._resolve_seconds:g} s") from None
        except OSError as error:
            raise self._lose(host, error.strerror or "no answer") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            self._check(ipaddress.ip_address(address))
        return addresses

    async def _asking(self, host: str, port: int, team_id: int) -> Future[list[Any]]:
        """A thread that asks for a name.

        Raises:
            NoResolver: none was free in time.
        """
        of_team = self._of_teams.setdefault(team_id, asyncio.Semaphore(_RESOLVERS_EACH))
        with ExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_seconds):
                    for each in (of_team, self._all):
                        await each.acquire()
                        held.callback(each.release)
            except TimeoutError:
                raise NoResolver("too many names are being resolved") from None
            job = self._threads.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            # A thread that hangs stays taken until it ends, whoever has given up waiting for it.
            release, loop = held.pop_all(), asyncio.get_running_loop()

        def end(_: object) -> None:
            with suppress(RuntimeError):  # the loop is over, and with it whoever waits
                loop.call_soon_threadsafe(release.close)

        job.add_done_callback(end)
        return job

    def _lose(self, host: str, why: str) -> OSError:
        """Remember that a name led nowhere; answers the error that says so."""
        moment = time.monotonic()
        if len(self._lost) >= _MAX_LOST:
            self._lost = {name: each for name, each in self._lost.items() if each[0] > moment}
        if len(self._lost) < _MAX_LOST:
            self._lost[host] = moment + _LOST_SECONDS, why
        return OSError(why)

    def _check(self, address: Address) -> None:
        if not is_public(address) and not any(address in network for network in self._networks):
            raise ForbiddenReceiver("This is not an address of the public internet.")


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet and to nothing that leads elsewhere from there."""
    if isinstance(address, IPv6Address):
        return address in _IPV6_PUBLIC and not any(address in network for network in _IPV6_NOT)
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _IPV4_NOT)
    )
