"""Key material: Ed25519 signing keys, CURVE transport keys, TLS certificates, and their files.

A secret is never in a repr and only ever written to a new file of mode 0600; a key file that group or
others can read is refused with the command that mends it. One key has one use. Deliberately elsewhere:
which public keys are members (`nodes.config`), who may connect (`nodes.transport`).
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import fastpath

FILE_BYTES_MAX = 4096
CERTIFICATE_DAYS = 825
"""The longest validity of a server certificate that all common clients accept."""
AUTHORITY_DAYS = 3650
_BACKDATE = datetime.timedelta(minutes=5)
"""A certificate is valid from a little before now, for clients whose clock is late."""

Kind = Literal["ed25519", "curve"]


class KeyFileError(ValueError):
    """A key file that cannot be used; the text names the file and the fix."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key. `seed` is the 32 secret bytes of RFC 8032."""

    seed: bytes = field(repr=False)
    public_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise ValueError(f"a seed is 32 bytes, not {len(self.seed)}")
        object.__setattr__(self, "public_key", fastpath.public_key(self.seed))

    @staticmethod
    def generate() -> SigningKey:
        return SigningKey(secrets.token_bytes(32))

    def sign(self, message: bytes) -> bytes:
        """Signature, 64 bytes."""
        return fastpath.sign(self.seed + self.public_key, message)

    @staticmethod
    def load(path: Path | str) -> SigningKey:
        """From a key file. OSError when it cannot be read, KeyFileError when it is not sound."""
        public, secret = _load(Path(path), "ed25519")
        key = SigningKey(secret)
        if key.public_key != public:
            raise KeyFileError(f"{path}: the public key is not that of the secret; restore the file from its backup")
        return key

    def save(self, path: Path | str) -> None:
        """Write a new key file, mode 0600. FileExistsError rather than overwrite one."""
        _save(Path(path), "ed25519", self.public_key, self.seed)


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """A CURVE (X25519) key pair of a socket, 32 bytes each."""

    public: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.public) != 32 or len(self.secret) != 32:
            raise ValueError("CURVE keys are 32 bytes each")

    @staticmethod
    def generate() -> CurveKeys:
        import zmq

        public, secret = zmq.curve_keypair()
        return CurveKeys(z85_decode(public), z85_decode(secret))

    @property
    def public_z85(self) -> bytes:
        """The 40 characters that ZeroMQ's socket options take."""
        return z85_encode(self.public)

    @property
    def secret_z85(self) -> bytes:
        return z85_encode(self.secret)

    @staticmethod
    def load(path: Path | str) -> CurveKeys:
        """From a key file. OSError when it cannot be read, KeyFileError when it is not sound."""
        import zmq

        public, secret = _load(Path(path), "curve")
        if z85_decode(zmq.curve_public(z85_encode(secret))) != public:
            raise KeyFileError(f"{path}: the public key is not that of the secret; restore the file from its backup")
        return CurveKeys(public, secret)

    def save(self, path: Path | str) -> None:
        """Write a new key file, mode 0600. FileExistsError rather than overwrite one."""
        _save(Path(path), "curve", self.public, self.secret)


_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUE = {letter: value for value, letter in enumerate(_Z85)}


def z85_encode(data: bytes) -> bytes:
    """ZeroMQ RFC 32 text of bytes whose number is a multiple of 4."""
    if len(data) % 4:
        raise ValueError("Z85 takes a multiple of 4 bytes")
    text = bytearray()
    for start in range(0, len(data), 4):
        word = int.from_bytes(data[start : start + 4], "big")
        text += bytes(_Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return bytes(text)


def z85_decode(text: bytes) -> bytes:
    """The bytes of Z85 text. ValueError when it is not Z85."""
    if len(text) % 5:
        raise ValueError("Z85 text is a multiple of 5 characters")
    data = bytearray()
    for start in range(0, len(text), 5):
        word = 0
        for letter in text[start : start + 5]:
            if letter not in _Z85_VALUE:
                raise ValueError("not a Z85 character")
            word = word * 85 + _Z85_VALUE[letter]
        if word >= 1 << 32:
            raise ValueError("Z85 group out of range")
        data += word.to_bytes(4, "big")
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Authority:
    """The cluster's certificate authority, PEM. Its key is only needed to issue more certificates."""

    certificate: bytes
    key: bytes = field(repr=False)

    @staticmethod
    def generate(name: str, *, now: datetime.datetime, days: int = AUTHORITY_DAYS) -> Authority:
        """A new self-signed authority that may sign servers and nothing below itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(subject, subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(certificate_authority=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return Authority(_pem(certificate), _key_pem(key))

    def issue(
        self, name: str, hosts: Sequence[str], *, now: datetime.datetime, days: int = CERTIFICATE_DAYS
    ) -> ServerCertificate:
        """A server certificate for `hosts` (names or IP addresses), with a fresh P-256 key."""
        if not hosts:
            raise ValueError("a server certificate needs at least one host")
        authority = x509.load_pem_x509_certificate(self.certificate)
        authority_key = cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(self.key, None))
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        certificate = (
            _builder(subject, authority.subject, key.public_key(), now, days)
            .add_extension(x509.SubjectAlternativeName([_alternative_name(host) for host in hosts]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificate_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(identifier, critical=False)
            .add_extension(issuer_identifier, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        return ServerCertificate(_pem(certificate), _key_pem(key))


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """PEM of one server's certificate and key."""

    certificate: bytes
    key: bytes = field(repr=False)

    def save(self, certificate_path: Path, key_path: Path) -> None:
        """Write both as new files; the key with mode 0600."""
        write_secret_file(key_path, self.key)
        write_new_file(certificate_path, self.certificate)


def write_secret_file(path: Path, data: bytes) -> None:
    """Create `path` with mode 0600 and durable content. FileExistsError when it exists."""
    write_new_file(path, data, mode=0o600)


def write_new_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Create `path`, durable together with its directory entry. FileExistsError when it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_secret_file(path: Path) -> bytes:
    """Content of a small file that only its owner may read. KeyFileError naming the chmod otherwise."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(f"{path}: not a regular file")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(f"{path}: others can read this secret (mode {mode & 0o777:04o}); run: chmod 600 {path}")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise KeyFileError(f"{path}: over {FILE_BYTES_MAX} bytes, not a key file")
    return data


def _save(path: Path, kind: Kind, public: bytes, secret: bytes) -> None:
    document = {"kind": kind, "public": public.hex(), "secret": secret.hex()}
    write_secret_file(path, json.dumps(document).encode() + b"\n")


def _load(path: Path, kind: Kind) -> tuple[bytes, bytes]:
    try:
        document = json.loads(read_secret_file(path))
        if not isinstance(document, dict) or document.keys() != {"kind", "public", "secret"}:
            raise KeyFileError(f"{path}: not a key file; it has the fields kind, public and secret")
        if document["kind"] != kind:
            raise KeyFileError(
                f"{path}: a key of kind {document['kind']!r}, where {kind!r} is needed; name the other file"
            )
        public, secret = (bytes.fromhex(document[name]) for name in ("public", "secret"))
    except KeyFileError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise KeyFileError(f"{path}: not a key file; restore it from its backup") from error
    if len(public) != 32 or len(secret) != 32:
        raise KeyFileError(f"{path}: keys are 32 bytes each; restore the file from its backup")
    return public, secret


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    if days < 1:
        raise ValueError("a certificate is valid for at least one day")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, certificate_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificate_authority,
        crl_sign=certificate_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
