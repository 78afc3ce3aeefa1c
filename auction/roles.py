"""Roles as a bit mask, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Role(IntEnum):
    """What an account may do; interface.md 1. The values are bits, replicated state, and never change."""

    ADMIN = 1
    ISSUER = 2
    AUDITOR = 4
    BIDDER = 8
    GATEWAY = 16


BY_NAME: dict[str, Role] = {role.name.lower(): role for role in Role}
NAMES: tuple[str, ...] = tuple(BY_NAME)


def role_mask(names: Sequence[str]) -> int:
    """The bit mask of role names; KeyError for a name that is no role."""
    mask = 0
    for name in names:
        mask |= BY_NAME[name]
    return int(mask)


def role_names(mask: int) -> list[str]:
    """Names of the roles in a mask, in the fixed order of `Role`."""
    return [name for name, role in BY_NAME.items() if mask & role]
