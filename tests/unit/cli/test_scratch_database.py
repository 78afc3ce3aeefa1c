"""Databases of a demo on the user's server: there while it runs, gone afterwards, whatever happens."""

from __future__ import annotations

import pytest
import sqlalchemy

from auction.cli.failure import ExitCode, Failure
from auction.cli.scratch_database import ScratchDatabases
from tests.databases import USER, MariaDbServer

pytestmark = pytest.mark.mariadb


def url_of(server: MariaDbServer) -> str:
    return f"mysql+pymysql://{USER}:{server.password}@127.0.0.1:{server.port}/"


def databases(server: MariaDbServer) -> set[str]:
    return {str(row[0]) for row in server.run("SHOW DATABASES")}


def test_databases_exist_inside_the_block_only(mariadb_server: MariaDbServer) -> None:
    scratch = ScratchDatabases(url_of(mariadb_server), 4)
    assert len(set(scratch.names)) == 4
    with scratch:
        assert set(scratch.names) <= databases(mariadb_server)
        for url in scratch.urls:
            engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
            with engine.connect() as connection:
                collation = connection.exec_driver_sql("SELECT @@collation_database").scalar()
            engine.dispose()
            assert collation == "utf8mb4_bin"
    assert not set(scratch.names) & databases(mariadb_server)


def test_databases_are_dropped_after_a_failure(mariadb_server: MariaDbServer) -> None:
    scratch = ScratchDatabases(url_of(mariadb_server), 4)
    with pytest.raises(RuntimeError, match="demo failed"), scratch:
        raise RuntimeError("demo failed")
    assert not set(scratch.names) & databases(mariadb_server)


def test_two_demos_use_different_databases(mariadb_server: MariaDbServer) -> None:
    first, second = (ScratchDatabases(url_of(mariadb_server), 4) for _ in range(2))
    assert not set(first.names) & set(second.names)


def test_wrong_password_is_a_usage_error_that_does_not_show_it(mariadb_server: MariaDbServer) -> None:
    scratch = ScratchDatabases(f"mysql+pymysql://{USER}:wrong-secret@127.0.0.1:{mariadb_server.port}/", 4)
    with pytest.raises(Failure) as caught, scratch:
        pytest.fail("entered without a server")
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.USAGE, "no_database")
    assert "wrong-secret" not in caught.value.detail + caught.value.hint
