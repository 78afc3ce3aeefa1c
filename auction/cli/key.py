"""`arremate key`: make a signing key, look at its public part. The secret is never printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auction.accounts import account_id
from auction.cli.command import local_command
from auction.cli.failure import usage
from auction.cli.output import Answer, record
from auction.cli.session import Session
from auction.cli.signing import load_key
from nodes.keys import SigningKey


def register(app: typer.Typer) -> None:
    keys = typer.Typer(help="Your signing keys.", no_args_is_help=True)
    app.add_typer(keys, name="key")

    @local_command(keys, "new", example="arremate key new alice.key")
    def new(session: Session, file: Annotated[Path, typer.Argument(help="New file, readable by you only.")]) -> Answer:
        """Make a new key in a new file (an existing file is never overwritten)."""
        key = SigningKey.generate()
        try:
            key.save(file)
        except FileExistsError as error:
            raise usage("file_exists", f"{file} exists", "keys are never overwritten: choose another name") from error
        except OSError as error:
            raise usage("cannot_write", f"{file}: {error.strerror}") from error
        return _show(f"new key in {file}", file, key)

    @local_command(keys, "show", example="arremate key show alice.key")
    def show(session: Session, file: Annotated[Path, typer.Argument(help="Key file.")]) -> Answer:
        """Show the public key, and the id of an account registered with it."""
        return _show(str(file), file, load_key(file))


def _show(title: str, file: Path, key: SigningKey) -> Answer:
    value = {"file": str(file), "public_key": key.public_key.hex(), "account": account_id(key.public_key).hex()}
    return Answer(value, record(title, value))
