"""Which addresses the broker may post to: public ones, and the networks and hosts that the operator names."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# Translated to any IPv4 address, private ones included.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_HOST: Final = re.compile(r"\.?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def parse_address(text: str) -> IpAddress | None:
    """Return an address, or None for a name; an IPv4 address inside an IPv6 one is itself."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def is_public(address: str) -> bool:
    """Tell whether an address is on the public internet; an IPv4 address inside an IPv6 one is judged as itself."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if parsed in _NAT64:
            embedded = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        # Outside of it are IPv4-compatible, site-local and reserved addresses, some of which count as `is_global`.
        return parsed in _GLOBAL_UNICAST and parsed.is_global
    return parsed.is_global and not parsed.is_multicast


@dataclass(frozen=True)
class Places:
    """Networks, and hosts by name; `.example.com` stands for every host below it."""

    networks: Sequence[IpNetwork] = ()
    hosts: Sequence[str] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """Read a list of networks, addresses and hosts. Raises ValueError."""
        networks: list[IpNetwork] = []
        hosts: list[str] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                if not _HOST.fullmatch(entry.lower()) or entry.replace(".", "").isdigit():
                    message = (
                        "each entry is a network (10.0.0.0/8), an address, a host, or .example.com for all below it"
                    )
                    raise ValueError(message) from None
                hosts.append(entry.lower())
        return cls(tuple(networks), tuple(hosts))

    def hold(self, host: str, address: str | None = None) -> bool:
        """Say whether a host is named, or its address (by default the host, if that is one) is in a network."""
        name = host.lower().rstrip(".")
        if any(name == entry or (entry.startswith(".") and name.endswith(entry)) for entry in self.hosts):
            return True
        parsed = parse_address(address or host)
        return parsed is not None and any(
            parsed in network for network in self.networks if network.version == parsed.version
        )
