"""Whose address a request has, with and without proxies before the server."""

from typing import Any

import pytest

from server.auth.addresses import address_group, client_address


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    return {
        "client": (peer, 1234) if peer is not None else None,
        "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded],
    }


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("203.0.113.7", [], (), "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], (), "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], ("10.0.0.0/8",), "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], ("10.0.0.0/8",), "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.9"], ("10.0.0.0/8",), "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], ("10.0.0.1",), "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], ("10.0.0.1",), "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], ("10.0.0.1",), "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], ("10.0.0.1",), "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], ("10.0.0.1",), "10.0.0.1"),
        ("10.0.0.1", [], ("10.0.0.1",), "10.0.0.1"),
        (None, ["198.51.100.1"], ("10.0.0.1",), ""),
    ],
)
def test_the_address_is_the_right_most_that_is_not_a_trusted_proxy(
    peer: str | None, forwarded: list[str], trusted: tuple[str, ...], expected: str
) -> None:
    assert client_address(scope(peer, *forwarded), trusted) == expected


def test_addresses_of_one_ipv6_site_count_as_one() -> None:
    assert address_group("2001:db8:1:2:3::4") == address_group("2001:db8:1:2:ffff::1")
    assert address_group("2001:db8:1:2::1") != address_group("2001:db8:1:3::1")
    assert address_group("198.51.100.1") == "198.51.100.1"
    assert address_group("testclient") == "testclient"
