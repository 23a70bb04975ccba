"""What MySQL and MariaDB keep of a password instead of it, made on this side.

- ``mysql_native_password``: twice SHA-1, without salt. Whoever sees it, and a login as well, can log in: connect with
  TLS. https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/
- ``caching_sha2_password``: ``$A$005$``, 20 characters of salt, and 5000 rounds of SHA-256-crypt (which takes 16 of
  salt at most; MySQL's takes 20, so no crypt library makes it). https://www.akkadia.org/drepper/SHA-crypt.txt
"""

from __future__ import annotations

import hashlib
import secrets
import string

_SALT_CHARACTERS = string.ascii_letters + string.digits
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000


def verifier(plugin: str, password: str) -> str:
    """What the authentication plugin stores of a password."""
    return {"mysql_native_password": _native, "caching_sha2_password": _caching_sha2}[plugin](password)


def _native(password: str) -> str:
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return f"*{hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()}"


def _caching_sha2(password: str) -> str:
    salt = "".join(secrets.choice(_SALT_CHARACTERS) for _ in range(20))
    return f"$A$005${salt}{sha256_crypt(password.encode(), salt.encode())}"


def sha256_crypt(password: bytes, salt: bytes) -> str:
    """The checksum of SHA-256-crypt, 43 characters. The names are those of its specification."""
    sum_b = _sha256(password, salt, password)
    bits = [sum_b if len(password) >> bit & 1 else password for bit in range(len(password).bit_length())]
    sum_a = _sha256(password, salt, _stretch(sum_b, len(password)), *bits)
    sequence_p = _stretch(_sha256(password * len(password)), len(password))
    sequence_s = _stretch(_sha256(salt * (16 + sum_a[0])), len(salt))
    mixed = sum_a
    for turn in range(_ROUNDS):
        mixed = _sha256(
            sequence_p if turn % 2 else mixed,
            sequence_s if turn % 3 else b"",
            sequence_p if turn % 7 else b"",
            mixed if turn % 2 else sequence_p,
        )
    return _encoded(mixed)


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _stretch(digest: bytes, length: int) -> bytes:
    return (digest * (length // len(digest) + 1))[:length]


def _encoded(digest: bytes) -> str:
    """Three bytes as four characters, the lowest bits first; the bytes of a group lie ten apart."""
    groups = [(i * 21 % 30, (i * 21 + 10) % 30, (i * 21 + 20) % 30) for i in range(10)]
    numbers = [(digest[x] << 16 | digest[y] << 8 | digest[z], 4) for x, y, z in groups]
    numbers.append((digest[31] << 8 | digest[30], 3))
    return "".join(_ALPHABET[number >> 6 * i & 63] for number, count in numbers for i in range(count))
