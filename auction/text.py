"""Which text an operation may carry: Unicode NFC, printable, bounded, judged alike by every replica.

Always holds: the answer depends only on the text, never on the Python that runs (see
`unicode_assigned`), and what is accepted can be stored and hashed as a canonical row.
"""

from __future__ import annotations

from bisect import bisect_right
from unicodedata import is_normalized

from auction.unicode_assigned import BOUNDARIES

_LINE_CONTROLS = "\n\t"


def is_acceptable(text: str, characters_max: int, *, lines: bool = False) -> bool:
    """At most `characters_max` code points, NFC, assigned, no control characters.

    With `lines` a line feed and a tab are allowed.
    """
    if len(text) > characters_max:
        return False
    if lines:
        for control in _LINE_CONTROLS:
            text = text.replace(control, " ")
    if text.isascii():
        return text.isprintable()
    return all(map(_is_allowed, text)) and is_normalized("NFC", text)


def _is_allowed(character: str) -> bool:
    """An assigned character that is neither a control (C0, DEL, C1) nor a surrogate."""
    point = ord(character)
    if point < 0x20 or 0x7F <= point < 0xA0 or 0xD800 <= point < 0xE000:
        return False
    return bisect_right(BOUNDARIES, point) & 1 == 1
