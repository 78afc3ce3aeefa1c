"""`arremate watch`: what happens, as it happens."""

from __future__ import annotations

from typing import Annotated

import typer

from auction.cli.command import Call, cluster_command
from auction.cli.failure import usage
from auction.cli.money import format_time
from auction.cli.output import Answer
from auction.cli.submission import ask

Cursor = tuple[int, int, int]
"""(sequence, index, effect) of an event."""
BEFORE_ALL: Cursor = (0, 0, 0)
"""The genesis is block 0 and has no events."""
PLACE_FIELDS = ("sequence", "index", "effect", "time_us", "kind", "auction", "revision")


def register(app: typer.Typer) -> None:
    @cluster_command(app, "watch", example="arremate watch --auction 3f2a8c0d5b6e7f901122334455667788")
    def watch(
        call: Call,
        auction: Annotated[str | None, typer.Option(help="Only this auction's events.")] = None,
        after: Annotated[str | None, typer.Option(help="Go on after this event: SEQUENCE-INDEX-EFFECT.")] = None,
        from_start: Annotated[bool, typer.Option("--from-start", help="From the first event on.")] = False,
        count: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    ) -> Answer:
        """Follow events from now on until Ctrl-C, one a line (in JSON: one document a line)."""
        seen = 0
        for event in call.connection.events(auction, _start(call, after, from_start=from_start)):
            details = ", ".join(f"{name} {value}" for name, value in event.items() if name not in PLACE_FIELDS)
            line = (
                f"{event['sequence']}-{event['index']}-{event['effect']}  {format_time(event['time_us'])}  "
                f"{event['kind']}  {event.get('auction', '-')}  {details}"
            )
            call.session.output.show(Answer(event, line), call.output_format)
            seen += 1
            if seen == count:
                break
        return Answer({"events": seen}, f"{seen} events")


def _start(call: Call, after: str | None, *, from_start: bool) -> Cursor:
    """The place after which to begin; the same over HTTPS and ZeroMQ."""
    if after is not None:
        if from_start:
            raise usage("bad_option", "--after and --from-start are two beginnings", "give one of them")
        return _cursor(after)
    if from_start:
        return BEFORE_ALL
    newest = ask(call, {"query": "events", "order": "descending", "limit": 1})["events"]
    return (newest[0]["sequence"], newest[0]["index"], newest[0]["effect"]) if newest else BEFORE_ALL


def _cursor(text: str) -> Cursor:
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise usage("bad_cursor", f"'{text}' is no event id", "write SEQUENCE-INDEX-EFFECT, for example 12-0-1")
    return int(parts[0]), int(parts[1]), int(parts[2])
