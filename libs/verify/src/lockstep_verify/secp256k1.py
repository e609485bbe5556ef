"""Who signed a transaction: recovery of the public key from an ECDSA signature over secp256k1 (SEC 1, section 4.1.6; SEC 2, section 2.4.1). Pure."""

from __future__ import annotations

from typing import Final, TypeAlias

from lockstep_verify.keccak import keccak256

_P: Final = 2**256 - 2**32 - 977
_N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_G: Final = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)

#: In Jacobian coordinates; the point at infinity has z = 0.
_Point: TypeAlias = tuple[int, int, int]
_NOWHERE: Final = (0, 1, 0)


def signer(digest: bytes, odd: bool, r: int, s: int) -> bytes | None:
    """Address of the account that made a signature over the digest; None where the numbers are no signature that a chain takes (EIP-2: low s)."""
    if not (0 < r < _N and 0 < s <= _N // 2):
        return None
    y = pow(r**3 + 7, (_P + 1) // 4, _P)
    if y * y % _P != (r**3 + 7) % _P:
        return None
    point = (r, y if y % 2 == odd else _P - y, 1)
    inverse = pow(r, -1, _N)
    found = _sum(_times(point, s * inverse % _N), _times((*_G, 1), -int.from_bytes(digest, "big") * inverse % _N))
    if found[2] == 0:
        return None
    scale = pow(found[2], -1, _P)
    x, y = found[0] * scale**2 % _P, found[1] * scale**3 % _P
    return keccak256(x.to_bytes(32, "big") + y.to_bytes(32, "big"))[12:]


def _times(point: _Point, factor: int) -> _Point:
    found: _Point = _NOWHERE
    for bit in f"{factor:b}":
        found = _double(found)
        if bit == "1":
            found = _sum(found, point)
    return found


def _double(point: _Point) -> _Point:
    x, y, z = point
    if z == 0 or y == 0:
        return _NOWHERE
    square = y * y % _P
    slope, across = 3 * x * x % _P, 4 * x * square % _P
    third = (slope * slope - 2 * across) % _P
    return third, (slope * (across - third) - 8 * square * square) % _P, 2 * y * z % _P


def _sum(left: _Point, right: _Point) -> _Point:
    if left[2] == 0 or right[2] == 0:
        return right if left[2] == 0 else left
    one, other = left[2] * left[2] % _P, right[2] * right[2] % _P
    x, across = left[0] * other % _P, (right[0] * one - left[0] * other) % _P
    y, up = left[1] * other * right[2] % _P, (right[1] * one * left[2] - left[1] * other * right[2]) % _P
    if across == 0:
        return _double(left) if up == 0 else _NOWHERE
    square = across * across % _P
    cube, along = square * across % _P, x * square % _P
    third = (up * up - cube - 2 * along) % _P
    return third, (up * (along - third) - y * cube) % _P, across * left[2] * right[2] % _P
