"""SROS2 access policy of a running node, from the topics and services that it really opens.

`python -m diffusion_perception_ros.ros.access_policy [NODE] [-o FILE]` prints the policy of a node that runs in this
domain, or adds what it opens to a policy file, which `ros2 security create_permission` makes into signed permissions.
Schema: sros2/policy/schemas/policy.xsd, version 0.2.0. docs/security.md says how to use it.
"""

from __future__ import annotations

import argparse
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import rclpy
from rclpy.node import Node


ENCLAVE = "/perception"
SETTLE = 3.0
"""Seconds in which nothing new of the node may be discovered."""

Access = dict[str, set[str]]
"""Kind of access, one of `KINDS`, to names: without their slash where they are in the node's namespace."""
KINDS = {
    "subscribe": ("topics", "topic"),
    "publish": ("topics", "topic"),
    "reply": ("services", "service"),
    "request": ("services", "service"),
}


def observe(observer: Node, name: str, namespace: str) -> Access:
    """What a node opens, as discovery tells it at this moment; empty if there is no such node."""
    if (name, namespace) not in observer.get_node_names_and_namespaces():
        return {}
    found = {
        "subscribe": observer.get_subscriber_names_and_types_by_node(name, namespace),
        "publish": observer.get_publisher_names_and_types_by_node(name, namespace),
        "reply": observer.get_service_names_and_types_by_node(name, namespace),
        "request": observer.get_client_names_and_types_by_node(name, namespace),
    }
    return {kind: {_relative(entry, name, namespace) for entry, _ in entries} for kind, entries in found.items()}


def _relative(topic: str, name: str, namespace: str) -> str:
    """`~/x` for the node's own names, `x` for those of its namespace, else the name in full."""
    prefix = "/" if namespace == "/" else f"{namespace}/"
    if topic.startswith(f"{prefix}{name}/"):
        return "~" + topic[len(prefix) + len(name) :]
    return topic[len(prefix) :] if namespace != "/" and topic.startswith(prefix) else topic


def merged(*accesses: Access) -> Access:
    """What any of them opens."""
    return {kind: set().union(*(access.get(kind, set()) for access in accesses)) for kind in KINDS}


def read_policy(path: Path, name: str) -> Access:
    """The access that a policy file allows to a node."""
    root = ElementTree.parse(path).getroot()
    access: Access = {kind: set() for kind in KINDS}
    for profile in root.iter("profile"):
        if profile.get("node") != name:
            continue
        for kind, (group, item) in KINDS.items():
            for element in profile.iter(group):
                if element.get(kind) == "ALLOW":
                    access[kind] |= {entry.text or "" for entry in element.iter(item)}
    return access


def write_policy(access: Access, name: str, namespace: str, enclave: str = ENCLAVE) -> str:
    """A policy file that allows a node what is in `access`, and nothing else."""
    policy = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(policy, "enclaves")
    profiles = ElementTree.SubElement(ElementTree.SubElement(enclaves, "enclave", path=enclave), "profiles")
    profile = ElementTree.SubElement(profiles, "profile", ns=namespace, node=name)
    for kind, (group, item) in KINDS.items():
        if names := access.get(kind):
            element = ElementTree.SubElement(profile, group, {kind: "ALLOW"})
            _fill(element, item, names)
    ElementTree.indent(policy)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(policy, encoding="unicode") + "\n"


def _fill(element: ElementTree.Element, item: str, names: Iterable[str]) -> None:
    for name in sorted(names):
        ElementTree.SubElement(element, item).text = name


def _settled(observer: Node, name: str, namespace: str) -> Access:
    access: Access = {}
    since = time.monotonic()
    while time.monotonic() - since < SETTLE:
        rclpy.spin_once(observer, timeout_sec=0.1)
        now = merged(access, observe(observer, name, namespace))
        if now != merged(access):
            access, since = now, time.monotonic()
    return merged(access)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 if there is no such node."""
    parser = argparse.ArgumentParser(prog="access_policy", description=__doc__)
    parser.add_argument("node", nargs="?", default="/perception_node", help="full name of the running node")
    parser.add_argument("-o", "--output", type=Path, help="policy file; what is allowed there stays allowed")
    args = parser.parse_args(arguments)
    namespace, _, name = args.node.rpartition("/")
    namespace = namespace or "/"
    rclpy.init()
    try:
        observer = rclpy.create_node("access_policy")
        access = _settled(observer, name, namespace)
        observer.destroy_node()
    finally:
        rclpy.try_shutdown()
    if not any(access.values()):
        print(f"access_policy: no node {args.node} runs in this domain", file=sys.stderr)
        return 1
    if args.output is not None and args.output.exists():
        access = merged(access, read_policy(args.output, name))
    text = write_policy(access, name, namespace)
    if args.output is None:
        print(text, end="")
    else:
        args.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
