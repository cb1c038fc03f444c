"""drained: policies with the members that they had before, while those connections drain (DESIGN.md 4). Pure.

Where a change of members or weights moves a client, a distribution point names the end point that had it
before, in GUE's private data; its new end point sends on what it does not know. Both need the previous table,
for one drain time: ``begun`` says what a change leaves behind, ``with_drains`` puts it into a configuration.
The agent keeps it (ipshare.agent.drains).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipshare.model import Config, Member, PathKind, Policy


@dataclass(frozen=True, slots=True)
class Drain:
    """``policy`` had these members until a change; what they have drains until ``deadline_ns``
    (CLOCK_BOOTTIME of that boot)."""

    policy: str
    members: tuple[Member, ...]
    deadline_ns: int
    boot_id: str


def begun(
    kept: Sequence[Drain], before: Config, after: Config, now_ns: int, boot_id: str
) -> tuple[Drain, ...]:
    """The drains that there are once ``after`` has come after ``before``. One for each policy: a further
    change within the time puts the latest members in the place of earlier ones."""
    old = {policy.name: policy for policy in before.policies}
    found = []
    for policy in after.policies:
        was = old.get(policy.name)
        if was is None or not policy.drain_s or not _hash_alike(was, policy):
            continue
        if was.members != policy.members:
            found.append(Drain(policy.name, was.members, now_ns + int(policy.drain_s * 1e9), boot_id))
        else:
            found += [drain for drain in kept if drain.policy == policy.name]
    return tuple(found)


def with_drains(config: Config, drains: Sequence[Drain]) -> Config:
    """``config`` with what its policies had before, where that is of use: some path is GUE, and every end
    point is still known (without one of them the previous table would be another)."""
    by_name = {drain.policy: drain for drain in drains}
    policies = tuple(_with(config, policy, by_name.get(policy.name)) for policy in config.policies)
    return config if policies == config.policies else replace(config, policies=policies)


def _with(config: Config, policy: Policy, drain: Drain | None) -> Policy:
    if drain is None or drain.members == policy.members:
        return policy
    paths = {endpoint.name: endpoint.path for endpoint in config.endpoints}
    is_gue = any(paths.get(member.endpoint) is PathKind.GUE for member in policy.members)
    if not is_gue or not all(member.endpoint in paths for member in drain.members):
        return policy
    return replace(policy, previous=drain.members)


def _hash_alike(one: Policy, other: Policy) -> bool:
    """Else no client's place can be told by the new table."""
    return (one.client_bits4, one.client_bits6) == (other.client_bits4, other.client_bits6)
