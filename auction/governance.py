"""rules.activate: from which sequence the next version of the rules is in force.

The minimal mechanism: one version at a time, each recorded in the log before it takes effect. A node whose
program does not know the version in force stops with an alarm rather than execute something else.
"""

from __future__ import annotations

from auction import tables
from auction.approvals import approve
from auction.call import Call
from auction.codes import AuctionStatus
from auction.effects import refused
from auction.operations import Activate
from auction.roles import Role
from auction.state import Activation
from nodes.codes import Status
from nodes.machine import Outcome


class UnsupportedRules(RuntimeError):
    """The version in force is newer than this program: install the new release on this node."""


def activate(call: Call, operation: Activate) -> Outcome:
    house, context = call.house, call.context
    if not call.has(Role.ADMIN):
        return refused(Status.UNAUTHORIZED)
    in_force = house.rules_from <= context.sequence
    if not in_force or operation.application_version != house.rules_version + 1:
        return refused(AuctionStatus.INVALID_VERSION)
    if operation.at_sequence <= context.sequence:
        return refused(AuctionStatus.INVALID_VERSION)
    approved = approve(call, operation)
    if approved.complete:
        version, at_sequence = operation.application_version, operation.at_sequence
        call.rows.put(tables.activations, Activation(version, at_sequence, context.sequence, context.index))
        call.rows.put(tables.house, house._replace(rules_version=version, rules_from=at_sequence))
        call.journal.effect("activated", application_version=version, at_sequence=at_sequence)
    return call.journal.accepted(approvals=approved.approvals, needed=approved.needed)
