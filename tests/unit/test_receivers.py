"""Where webhooks may go: which addresses are public, which spellings of them are read, and what names lead to."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.triggers.receivers import ForbiddenReceiver, NoResolver, Receivers, is_public

PUBLIC = Receivers((), ("443", "80", "8443"))

#: First and last address of what is not public: IANA's special-purpose registries as they stood in 2025,
#: multicast, and Azure's wire server; written out, so that the test does not ask the library that is in question.
NOT_PUBLIC_V4 = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
]
NOT_PUBLIC_V6 = [
    ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]


def number(text: str) -> int:
    """An address as a number, read by the C library."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, text), "big")


def is_listed(value: int, spans: Sequence[tuple[str, str]]) -> bool:
    return any(number(first) <= value <= number(last) for first, last in spans)


def edges(spans: Sequence[tuple[str, str]], top: int) -> list[int]:
    """First and last of each span, and their neighbours outside."""
    found = {number(text) + step for span in spans for text in span for step in (-1, 0, 1)}
    return sorted(value for value in found if 0 <= value <= top)


@given(st.integers(0, 2**32 - 1) | st.sampled_from(edges(NOT_PUBLIC_V4, 2**32 - 1)))
def test_ipv4_addresses_are_public_unless_a_registry_says_otherwise(value: int) -> None:
    assert is_public(IPv4Address(value)) is not is_listed(value, NOT_PUBLIC_V4)


@given(
    st.integers(0, 2**128 - 1)
    # What carries an IPv4 address: mapped, compatible, NAT64, 6to4, Teredo.
    | st.builds(
        lambda prefix, rest: (number(prefix) | rest) & (2**128 - 1),
        st.sampled_from(
            ["::ffff:0:0", "::", "64:ff9b::", "64:ff9b:1::", "2002::", "2001::", "2001:db8::", "2600::"]
        ),
        st.integers(0, 2**32 - 1) | st.integers(0, 2**112 - 1),
    )
    | st.sampled_from(edges(NOT_PUBLIC_V6, 2**128 - 1))
)
@example(number("64:ff9b::7f00:1"))
@example(number("2002:7f00:1::"))
@example(number("::7f00:1"))
@example(number("fec0::1"))
@example(number("2606:4700::1111"))
def test_ipv6_addresses_are_public_only_where_hosts_of_the_internet_are(value: int) -> None:
    assert is_public(IPv6Address(value)) is not is_listed(value, NOT_PUBLIC_V6)


@pytest.mark.parametrize(
    "text", ["64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1", "192.0.0.192", "fec0::1", "224.0.0.1"]
)
def test_what_python_takes_for_public_is_refused(text: str) -> None:
    address = IPv6Address(text) if ":" in text else IPv4Address(text)
    assert not is_public(address)


@given(st.integers(0, 2**32 - 1) | st.sampled_from(edges(NOT_PUBLIC_V4, 2**32 - 1)), st.data())
def test_an_ipv4_address_in_another_spelling_is_never_accepted(value: int, data: st.DataObject) -> None:
    parts = value.to_bytes(4, "big")
    spell = [
        lambda part: f"0x{part:x}",
        lambda part: f"0{part:o}",
        lambda part: f"{part:04}",
    ]
    odd = [data.draw(st.sampled_from(spell))(part) for part in parts]
    whole = data.draw(
        st.sampled_from(
            [
                ".".join(odd),
                ".".join([*map(str, parts[:3]), odd[3]]),
                str(value),
                hex(value),
                f"0{value:o}",
                f"{parts[0]}.{value & 0xFFFFFF}",
                f"{parts[0]}.{parts[1]}.{value & 0xFFFF}",
                f"{IPv4Address(value)}.",
                str(IPv4Address(value)).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
                str(IPv4Address(value)).replace(".", "。"),
                str(IPv4Address(value)).replace(".", "%2e"),
                f"[::ffff:{IPv4Address(value)}]",
                f"[::{IPv4Address(value)}]",
                f"[64:ff9b::{IPv4Address(value)}]",
            ]
        )
    )
    with pytest.raises(ForbiddenReceiver):
        PUBLIC.check_url(f"https://{whole}/")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/",
        "https://hooks.example.com:443/a/b?c=d&e=%20",
        "https://HOOKS.example.com:8443/x",
        "http://hooks.example.com/x",
        "http://hooks.example.com:8443/x",
        "https://xn--bcher-kva.example/x",
        "https://_under.example.com/x",
        "https://93.184.215.14/x",
        "https://[2606:4700::1111]/x",
        "https://[2606:4700::1111]:8443/x",
        "https://1.example/",
        "https://hooks.example.com/?u=http://a@b",
    ],
)
def test_web_addresses_of_the_internet_are_accepted(url: str) -> None:
    PUBLIC.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com:443/",
        "https:///x",
        "https://",
        "https://:443/",
        "https://user@hooks.example.com/",
        "https://user:password@hooks.example.com/",
        "https://@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com#@127.0.0.1/",
        "https://hooks.example.com\\@127.0.0.1/",
        "https://hooks.example.com/ x",
        " https://hooks.example.com/",
        "https://hooks.example.com/\n",
        "https://hooks.exam\tple.com/",
        "https://hooks.example.com/\r\nHost: other",
        "https://hooks.example.com\0.evil/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:99999999999/",
        "https://hooks.example.com:-1/",
        "https://hooks.example.com:443:443/",
        "https://hooks.example.com:+443/",
        "https://hooks.example.com:4_43/",
        "http://hooks.example.com:443/",
        "https://bücher.example/",
        "https://hooks.example.com/ä",
        "https://hooks.example.com./",
        "https://.example.com/",
        "https://hooks..example.com/",
        "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://{'a.' * 130}com/",
        f"https://hooks.example.com/{'a' * 2000}",
        "https://hooks%2eexample.com/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://localhost./",
        "https://a.localhost/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://0/",
        "https://0x/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://１２７.0.0.1/",
        "https://①②⑦.0.0.1/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:93.184.215.14]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fe80::1%25eth0]/",
        "https://[2606:4700::1111%25eth0]/",
        "https://[2606:4700::1111%eth0]/",
        "https://[2606:4700::1111]evil.example/",
        "https://evil.example[2606:4700::1111]/",
        "https://[93.184.215.14]/",
        "https://[2606:4700::1111/",
        "https://2606:4700::1111/",
        "https://[[2606:4700::1111]]/",
        "https://[v1.x]/",
    ],
)
def test_other_addresses_and_other_spellings_are_refused(url: str) -> None:
    with pytest.raises(ForbiddenReceiver):
        PUBLIC.check_url(url)


@given(
    st.text(max_size=80) | st.text("htps:/[]@#%.0123456789abcdefx\\?-_", max_size=60).map("https://".__add__)
)
def test_no_text_makes_the_check_fail_in_another_way(url: str) -> None:
    try:
        target = PUBLIC.target(url)
    except ForbiddenReceiver:
        return
    assert target.host.isascii()
    assert target.port in (443, 80, 8443)
    assert PUBLIC.target(f"{target.scheme}://{target.authority}{target.path}") == target


def test_without_the_setting_only_port_443_is_allowed() -> None:
    receivers = Receivers()
    receivers.check_url("https://hooks.example.com/")
    with pytest.raises(ForbiddenReceiver, match="port 80; allowed here: 443"):
        receivers.check_url("http://hooks.example.com/")


@pytest.mark.parametrize(
    ("networks", "ports"),
    [(("10.0.0.0/99",), ("443",)), (("all",), ("443",)), ((), ("https",)), ((), ("0",))],
)
def test_settings_that_are_none_are_refused(networks: Sequence[str], ports: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"network|port|literal"):
        Receivers(networks, ports)


def test_an_operators_networks_are_allowed_and_no_others() -> None:
    receivers = Receivers(("10.1.0.0/16", "fd00:1::/32"))
    receivers.check_url("https://10.1.2.3/")
    receivers.check_url("https://[fd00:1::5]/")
    for url in (
        "https://10.2.0.1/",
        "https://[fd00:2::5]/",
        "https://[::ffff:10.1.2.3]/",
        "https://localhost/",
    ):
        with pytest.raises(ForbiddenReceiver):
            receivers.check_url(url)
    Receivers(("127.0.0.0/8",)).check_url("https://localhost/")


# Names


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name resolve to these; the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_resolves_to_its_public_addresses_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "2606:4700::1111", "93.184.215.14", "93.184.215.14")
    found = asyncio.run(PUBLIC.resolve("hooks.example.com", 443))
    assert found == ["2606:4700::1111", "93.184.215.14"]
    assert asked == ["hooks.example.com"]


@pytest.mark.parametrize("inside", ["127.0.0.1", "10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"])
def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    resolving(monkeypatch, "93.184.215.14", inside)
    with pytest.raises(ForbiddenReceiver):
        asyncio.run(PUBLIC.resolve("hooks.example.com", 443))


def test_a_name_that_does_not_resolve_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    with pytest.raises(OSError, match="not known"):
        asyncio.run(Receivers().resolve("hooks.example.com", 443))


def test_a_name_that_led_nowhere_is_not_asked_for_again_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch)
    receivers = Receivers()
    moment = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    for after in (0, 59, 2):
        moment[0] += after
        with pytest.raises(OSError, match="not known"):
            asyncio.run(receivers.resolve("hooks.example.com", 443))
    assert asked == ["hooks.example.com"] * 2


class Hanging:
    """Name servers that answer about ``slow…`` only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.answer.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", port))]


def test_names_of_one_team_that_hang_hold_up_neither_other_teams_nor_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Hanging(monkeypatch)

    async def resolve() -> None:
        receivers = Receivers(wait_seconds=0.05, resolve_seconds=0.05)
        # Who waits for them has given up, and still the threads are taken.
        for host in ("slow1.example", "slow2.example"):
            with pytest.raises(OSError, match=r"no answer within 0.05 s"):
                await receivers.resolve(host, 443, 1)
        with pytest.raises(NoResolver):
            await receivers.resolve("quick.example", 443, 1)
        assert await receivers.resolve("quick.example", 443, 2) == ["93.184.215.14"]
        with pytest.raises(OSError, match=r"no answer within 0.05 s"):
            await receivers.resolve("slow1.example", 443, 2)
        assert names.asked == ["slow1.example", "slow2.example", "quick.example"]
        names.answer.set()
        while True:
            with suppress(NoResolver):
                assert await receivers.resolve("quick.example", 443, 1) == ["93.184.215.14"]
                return

    try:
        asyncio.run(resolve())
    finally:
        names.answer.set()
