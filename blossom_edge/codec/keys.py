"""Ed25519 keys: what signs a frame, and what is shown to people of it. Never writes a key anywhere."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 32
"""Length of a private and of a public key."""

SIGNATURE_BYTES = 64
"""Length of a signature."""


class SigningKey:
    """The private key of one side. Its `repr` shows only the fingerprint."""

    __slots__ = ("_private", "_public_hex", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self._public_hex = self._private.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_bytes(cls, secret: bytes) -> SigningKey:
        """Take up a key that `to_bytes` gave.

        Raises:
            ValueError: not 32 bytes.
        """
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        return cls(bytes(secret))

    def to_bytes(self) -> bytes:
        """The 32 secret bytes, to be kept in a file only the owner can read."""
        return self._secret

    @property
    def public_hex(self) -> str:
        """The public key, 64 hex digits."""
        return self._public_hex

    @property
    def fingerprint(self) -> str:
        """The public key's fingerprint, see `fingerprint`."""
        return fingerprint(self._public_hex)

    def sign(self, data: bytes) -> bytes:
        """64 bytes of signature over `data`; equal for equal data."""
        return self._private.sign(data)


def verify(public_hex: str, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made with the key; False for a key that is none."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))
        key.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public_hex: str) -> str:
    """A public key for people to compare: the first 16 hex digits of its SHA-256, `1a2b-3c4d-5e6f-7a8b`.

    Raises:
        ValueError: not hex.
    """
    digest = hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()
    return "-".join(digest[i : i + 4] for i in range(0, 16, 4))
