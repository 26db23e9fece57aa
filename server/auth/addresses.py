"""Where a request comes from, when proxies stand between."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

_Address = IPv4Address | IPv6Address

#: A site has at least a /64 of IPv6 to itself, so single addresses there count nothing.
_IPV6_SITE_BITS = 64


def client_address(scope: Mapping[str, Any], trusted: tuple[str, ...]) -> str:
    """The address of the client: the right-most of X-Forwarded-For that is not a trusted proxy.

    Anyone can send the header; only what trusted proxies appended to it is known. So it is read from the
    right and only as far as every hop before was trusted, starting with the peer itself.

    Args:
        scope: the ASGI scope.
        trusted: addresses or networks of the operator's proxies.
    """
    client = scope.get("client")
    peer = str(client[0]) if client else ""
    networks = _networks(trusted)
    nearest = _parse(peer)
    if nearest is None or not _is_trusted(nearest, networks):
        return peer if nearest is None else str(nearest)
    for hop in _forwarded(scope):
        address = _parse(hop)
        if address is None:
            break
        nearest = address
        if not _is_trusted(address, networks):
            break
    return str(nearest)


def address_group(address: str) -> str:
    """What to count attempts by: the address, or for IPv6 its /64."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_SITE_BITS), strict=False))
    return address


def _forwarded(scope: Mapping[str, Any]) -> Iterator[str]:
    """The hops of every X-Forwarded-For header, the nearest first."""
    headers = [value for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    for value in reversed(headers):
        for hop in reversed(value.decode("latin-1").split(",")):
            yield hop.strip()


def _parse(text: str) -> _Address | None:
    """An address; also ``address:port`` and ``[address]:port``, as some proxies write it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_trusted(address: _Address, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text, strict=False) for text in trusted)
