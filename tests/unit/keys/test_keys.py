"""Keys: files that only their owner can read, and certificates that a TLS client accepts."""

from __future__ import annotations

import datetime
import json
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

import fastpath
from nodes.keys import (
    Authority,
    CurveKeys,
    KeyFileError,
    SigningKey,
    read_secret_file,
    write_new_file,
    write_secret_file,
    z85_decode,
    z85_encode,
)

NOW = datetime.datetime.now(datetime.UTC)


def test_signing_key_comes_back_from_its_file(tmp_path: Path) -> None:
    key = SigningKey.generate()
    path = tmp_path / "a.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path) == key
    assert fastpath.verify(key.public_key, b"text", SigningKey.load(path).sign(b"text"))


def test_curve_keys_come_back_from_their_file(tmp_path: Path) -> None:
    keys = CurveKeys.generate()
    path = tmp_path / "a.key"
    keys.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CurveKeys.load(path) == keys
    assert (len(keys.public_z85), len(keys.secret_z85)) == (40, 40)
    assert z85_decode(keys.public_z85) == keys.public


def test_secrets_are_in_no_repr() -> None:
    key, keys = SigningKey.generate(), CurveKeys.generate()
    authority = Authority.generate("test", now=NOW)
    assert repr(key.seed) not in repr(key)
    assert repr(keys.secret) not in repr(keys)
    assert "PRIVATE" not in repr(authority)
    assert "PRIVATE" not in repr(authority.issue("node", ["localhost"], now=NOW))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_file_that_others_can_read_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    SigningKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        SigningKey.load(path)


@pytest.mark.parametrize("save", [SigningKey.generate().save, CurveKeys.generate().save])
def test_existing_file_is_never_overwritten(tmp_path: Path, save: Callable[[Path], None]) -> None:
    path = tmp_path / "a.key"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        save(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"kind":"ed25519"}',
        b'{"kind":"curve","public":"","secret":""}',
        b'{"kind":"ed25519","public":"zz","secret":""}',
        b'{"kind":"ed25519","public":1,"secret":2}',
        b'{"kind":"ed25519","public":"00","secret":"00"}',
        json.dumps({"kind": "ed25519", "public": "00" * 32, "secret": "11" * 32}).encode(),
        b" " * 5000,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_file_that_is_no_signing_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    write_secret_file(path, content)
    with pytest.raises(KeyFileError, match=r"a\.key"):
        SigningKey.load(path)


def test_curve_file_whose_halves_do_not_match_is_refused(tmp_path: Path) -> None:
    CurveKeys(CurveKeys.generate().public, CurveKeys.generate().secret).save(tmp_path / "a.key")
    with pytest.raises(KeyFileError, match="not that of the secret"):
        CurveKeys.load(tmp_path / "a.key")


def test_key_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "a.key")
    with pytest.raises(KeyFileError, match="kind"):
        CurveKeys.load(tmp_path / "a.key")


def test_directory_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        read_secret_file(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    writer = threading.Thread(target=lambda: fifo.open("wb").close())
    writer.start()
    with pytest.raises(KeyFileError, match="regular"):
        read_secret_file(fifo)
    writer.join()


def test_file_in_an_absent_directory_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_new_file(tmp_path / "absent" / "file", b"")


def test_keys_of_a_wrong_size_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(bytes(31))
    with pytest.raises(ValueError, match="32 bytes"):
        CurveKeys(bytes(32), bytes(31))


def test_z85_is_that_of_zeromq() -> None:
    assert z85_encode(bytes.fromhex("864fd26fb559f75b")) == b"HelloWorld"
    assert z85_decode(b"HelloWorld") == bytes.fromhex("864fd26fb559f75b")
    with pytest.raises(ValueError, match="multiple of 4"):
        z85_encode(b"abc")
    for text in (b"Hell", b"Hell ", b"#####"):
        with pytest.raises(ValueError):
            z85_decode(text)


def test_server_certificate_serves_tls_to_clients_that_trust_the_authority(tmp_path: Path) -> None:
    authority = Authority.generate("test cluster", now=NOW)
    server = authority.issue("node0", ["localhost", "127.0.0.1", "::1"], now=NOW, days=30)
    server.save(tmp_path / "tls.pem", tmp_path / "tls.key")
    assert stat.S_IMODE((tmp_path / "tls.key").stat().st_mode) == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    left, right = socket.socketpair()
    with left, right:
        received: list[bytes] = []

        def serve() -> None:
            with context.wrap_socket(left, server_side=True) as channel:
                received.append(channel.recv(5))

        thread = threading.Thread(target=serve)
        thread.start()
        with client.wrap_socket(right, server_hostname="127.0.0.1") as channel:
            channel.sendall(b"hello")
            thread.join()
    assert received == [b"hello"]


def test_certificates_have_their_validity_and_purpose() -> None:
    authority = Authority.generate("test cluster", now=NOW, days=10)
    root = x509.load_pem_x509_certificate(authority.certificate)
    leaf = x509.load_pem_x509_certificate(authority.issue("node0", ["node0.example"], now=NOW, days=3).certificate)
    leaf.verify_directly_issued_by(root)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node0.example"]
    assert leaf.not_valid_after_utc == NOW.replace(microsecond=0) + datetime.timedelta(days=3)
    with pytest.raises(ValueError, match="host"):
        authority.issue("node0", [], now=NOW)
    with pytest.raises(ValueError, match="day"):
        authority.issue("node0", ["a"], now=NOW, days=0)
