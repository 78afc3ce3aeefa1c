"""Databases of a scratch cluster on the user's own server: made with a random name, dropped at the end."""

from __future__ import annotations

import contextlib
import secrets
from types import TracebackType
from typing import Self

import sqlalchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from auction.cli.failure import ExitCode, Failure, usage


class ScratchDatabases:
    """One database a node on the server of `url`, whose user may create and drop databases."""

    def __init__(self, url: str, nodes: int) -> None:
        try:
            self._url = sqlalchemy.make_url(url)
        except ArgumentError as error:
            raise usage(
                "bad_database", "not a database URL", "write mysql+pymysql://user:password@127.0.0.1:3306/"
            ) from error
        if self._url.get_backend_name() not in ("mysql", "mariadb"):
            raise usage("bad_database", f"'{self._url.drivername}' is not a server", "leave out --database for SQLite")
        run = secrets.token_hex(4)
        self.names = [f"arremate_{run}_node{replica}" for replica in range(nodes)]

    @property
    def urls(self) -> list[str]:
        """With the password: for node.toml only, never for printing."""
        return [self._url.set(database=name).render_as_string(hide_password=False) for name in self.names]

    def __enter__(self) -> Self:
        """Create all of them, or `Failure`; what was created before a failure is dropped again."""
        try:
            self._run("CREATE DATABASE `{}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        except DBAPIError as error:
            with contextlib.suppress(Failure):
                self.drop()
            hint = "the user needs the right to create databases, and the server must run"
            raise Failure(ExitCode.USAGE, "no_database", f"{self._url!r}: {error.orig}", hint=hint) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Those that exist. Raises `Failure` naming them when the server does not answer."""
        try:
            self._run("DROP DATABASE IF EXISTS `{}`")
        except SQLAlchemyError as error:
            names = ", ".join(self.names)
            raise Failure(
                ExitCode.USAGE, "databases_left", f"could not drop {names}: {error}", hint="drop them"
            ) from error

    def _run(self, statement: str) -> None:
        engine = sqlalchemy.create_engine(self._url.set(database=None), poolclass=sqlalchemy.NullPool)
        try:
            with engine.connect() as connection:
                for name in self.names:
                    connection.exec_driver_sql(statement.format(name))
        finally:
            engine.dispose()
