"""Who reaches whom under a set of NetworkPolicies, as Kubernetes defines it.

A pod that no policy selects in a direction is open in that direction; one that is selected may do
what any of its policies allows. A connection needs the sender's egress and the receiver's ingress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tests.unit.deploy.rendering import Document


@dataclass(frozen=True)
class Pod:
    """One pod as policies see it."""

    name: str
    namespace: str
    labels: tuple[tuple[str, str], ...]

    @property
    def label_map(self) -> dict[str, str]:
        return dict(self.labels)


class Network:
    """The policies and namespaces of a rendered overlay."""

    def __init__(self, objects: list[Document]) -> None:
        self._policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
        self._namespaces = {
            one["metadata"]["name"]: {
                **one["metadata"].get("labels", {}),
                "kubernetes.io/metadata.name": one["metadata"]["name"],
            }
            for one in objects
            if one["kind"] == "Namespace"
        }

    def reaches(self, sender: Pod, receiver: Pod, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection between two pods is let through, on both sides."""
        return self._allows("egress", sender, receiver, port, protocol) and self._allows(
            "ingress", receiver, sender, port, protocol
        )

    def reaches_address(self, sender: Pod, address: str, port: int) -> bool:
        """Whether a connection to an address that is no pod leaves the sender."""
        return self._allows("egress", sender, address, port, "TCP")

    def is_denied_by_default(self, pod: Pod) -> bool:
        """Whether a policy without any rule selects the pod in both directions."""
        return any(
            set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            and policy["spec"].keys() <= {"podSelector", "policyTypes"}
            for policy in self._selecting(pod)
        )

    def _selecting(self, pod: Pod) -> Iterator[Document]:
        for policy in self._policies:
            if policy["metadata"]["namespace"] == pod.namespace and _matches(
                policy["spec"]["podSelector"], pod.label_map
            ):
                yield policy

    def _allows(self, direction: str, pod: Pod, other: Pod | str, port: int, protocol: str) -> bool:
        policies = [
            policy
            for policy in self._selecting(pod)
            if direction.capitalize() in policy["spec"]["policyTypes"]
        ]
        if not policies:
            return True
        side = "to" if direction == "egress" else "from"
        return any(
            _port_fits(rule.get("ports"), port, protocol)
            and (side not in rule or any(self._peer_fits(peer, pod, other) for peer in rule[side]))
            for policy in policies
            for rule in policy["spec"].get(direction, [])
        )

    def _peer_fits(self, peer: Document, pod: Pod, other: Pod | str) -> bool:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            if not isinstance(other, str):
                return False  # whether pods count as addresses is the network plugin's choice
            address = ip_address(other)
            return address in ip_network(block["cidr"]) and not any(
                address in ip_network(hole) for hole in block.get("except", [])
            )
        if isinstance(other, str):
            return False
        if "namespaceSelector" in peer:
            labels = self._namespaces.get(
                other.namespace, {"kubernetes.io/metadata.name": other.namespace}
            )
            if not _matches(peer["namespaceSelector"], labels):
                return False
        elif other.namespace != pod.namespace:
            return False
        return _matches(peer.get("podSelector", {}), other.label_map)


def _matches(selector: Document, labels: Mapping[str, str]) -> bool:
    if selector.keys() - {"matchLabels", "matchExpressions"}:
        raise ValueError(f"unknown selector {selector}")
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "In":
            raise ValueError(f"unknown operator in {expression}")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def _port_fits(ports: list[Document] | None, port: int, protocol: str) -> bool:
    return ports is None or any(
        entry["port"] == port and entry["protocol"] == protocol for entry in ports
    )
