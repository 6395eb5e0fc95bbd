"""Keys: signatures by the standard, fingerprints for people, secrets that stay out of logs."""

from __future__ import annotations

import hashlib

import pytest

from blossom_edge.codec.keys import SigningKey, fingerprint, verify

# RFC 8032, section 7.1, test 2
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_example_of_rfc_8032_is_signed_as_printed_there():
    key = SigningKey.from_bytes(SECRET)
    assert key.public_hex == PUBLIC
    assert key.sign(b"\x72") == SIGNATURE
    assert verify(PUBLIC, SIGNATURE, b"\x72")


def test_a_signature_holds_for_its_data_and_key_only():
    key = SigningKey.from_bytes(SECRET)
    assert not verify(PUBLIC, SIGNATURE, b"\x73")
    assert not verify(SigningKey.generate().public_hex, SIGNATURE, b"\x72")
    assert not verify(PUBLIC, key.sign(b"\x72")[:-1] + b"\x01", b"\x72")


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "0" * 63, "f" * 64])
@pytest.mark.parametrize("signature", [b"", b"\0" * 64])
def test_nonsense_verifies_to_false(public, signature):
    assert verify(public, signature, b"") is False


def test_a_key_comes_back_from_its_bytes():
    key = SigningKey.generate()
    again = SigningKey.from_bytes(key.to_bytes())
    assert len(key.to_bytes()) == 32
    assert again.public_hex == key.public_hex
    assert again.sign(b"x") == key.sign(b"x")
    assert SigningKey.generate().public_hex != key.public_hex


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SigningKey.from_bytes(bytes(31))


def test_a_fingerprint_is_sixteen_digits_of_the_hash_in_groups_of_four():
    digest = hashlib.sha256(bytes.fromhex(PUBLIC)).hexdigest()
    expected = f"{digest[0:4]}-{digest[4:8]}-{digest[8:12]}-{digest[12:16]}"
    assert fingerprint(PUBLIC) == expected
    assert SigningKey.from_bytes(SECRET).fingerprint == expected


def test_a_printed_key_shows_nothing_of_the_secret():
    key = SigningKey.from_bytes(SECRET)
    assert repr(key) == str(key) == f"SigningKey({key.fingerprint})"
