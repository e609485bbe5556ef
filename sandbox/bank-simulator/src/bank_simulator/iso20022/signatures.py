"""XML signatures in `AppHdr/Sgntr`: made with the bank's key, checked against the certificates that a counterparty gave it.

Enveloped, one reference to the whole of what the rail carries, exclusive canonicalisation, SHA-256; ECDSA or RSA. Written out here with nothing but
canonicalisation and cryptography, so that both ends of the rail can be wrong only by themselves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from lxml import etree

from bank_simulator.checks import CheckError

DSIG: Final = "http://www.w3.org/2000/09/xmldsig#"
_EXCLUSIVE: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
_ENVELOPED: Final = f"{DSIG}enveloped-signature"
_SHA256: Final = "http://www.w3.org/2001/04/xmlenc#sha256"
_ECDSA: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
_RSA: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
FIELD: Final = "AppHdr/Sgntr"


class Signer:
    """The bank's key, and the certificate that goes with it."""

    def __init__(self, key_file: Path, certificate_file: Path) -> None:
        """Reads both, as PEM.

        Raises:
            OSError, ValueError: One cannot be read, or is no EC or RSA key.
        """
        key = load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"{key_file} holds no EC or RSA key")
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes()).public_bytes(Encoding.DER)

    def sign(self, body: bytes) -> bytes:
        """The same message with a signature; one that it had is replaced."""
        root = etree.fromstring(body)
        holder = _holder(root)
        tag = f"{{{etree.QName(holder).namespace}}}Sgntr"
        for old in holder.findall(tag):
            holder.remove(old)
        place = etree.SubElement(holder, tag)
        digest = base64.b64encode(hashlib.sha256(_canonical(root)).digest()).decode()
        signature = etree.SubElement(place, f"{{{DSIG}}}Signature", nsmap={"ds": DSIG})
        algorithm = _ECDSA if isinstance(self._key, ec.EllipticCurvePrivateKey) else _RSA
        signed = etree.SubElement(signature, f"{{{DSIG}}}SignedInfo")
        _method(signed, "CanonicalizationMethod", _EXCLUSIVE)
        _method(signed, "SignatureMethod", algorithm)
        reference = etree.SubElement(signed, f"{{{DSIG}}}Reference", URI="")
        transforms = etree.SubElement(reference, f"{{{DSIG}}}Transforms")
        _method(transforms, "Transform", _ENVELOPED)
        _method(transforms, "Transform", _EXCLUSIVE)
        _method(reference, "DigestMethod", _SHA256)
        etree.SubElement(reference, f"{{{DSIG}}}DigestValue").text = digest
        etree.SubElement(signature, f"{{{DSIG}}}SignatureValue").text = base64.b64encode(self._value(_canonical(signed))).decode()
        shown = etree.SubElement(etree.SubElement(signature, f"{{{DSIG}}}KeyInfo"), f"{{{DSIG}}}X509Data")
        etree.SubElement(shown, f"{{{DSIG}}}X509Certificate").text = base64.b64encode(self._certificate).decode()
        return etree.tostring(root, xml_declaration=True, encoding="UTF-8")

    def _value(self, octets: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(octets, padding.PKCS1v15(), SHA256())
        size = (self._key.key_size + 7) // 8
        return b"".join(part.to_bytes(size) for part in decode_dss_signature(self._key.sign(octets, ec.ECDSA(SHA256()))))


def require_signed(root: etree._Element, certificates: Collection[str]) -> None:
    """A message bears a valid signature of one of these certificates (SHA-256, lower-case hex). Its signature is then taken out of it.

    Raises:
        CheckError: It does not.
    """
    holder = _holder(root)
    place = holder.find(f"{{{etree.QName(holder).namespace}}}Sgntr")
    if place is None:
        raise CheckError(FIELD, "SIGNATURE_REQUIRED", "messages are signed, as agreed with this counterparty")
    found = list(root.iter(f"{{{DSIG}}}Signature"))
    if len(found) != 1 or list(place) != found or (found[0].tail or "").strip():
        raise CheckError(FIELD, "SIGNATURE_FORM", "it holds one signature and nothing else, and there is no other one")
    signature = found[0]
    try:
        signed = signature[0]
        algorithm = _required_form(signed)
        value = base64.b64decode("".join((signature.findtext(f"{{{DSIG}}}SignatureValue") or "").split()), validate=True)
        (shown,) = signature.iter(f"{{{DSIG}}}X509Certificate")
        certificate = base64.b64decode("".join((shown.text or "").split()), validate=True)
        if hashlib.sha256(certificate).hexdigest() not in certificates:
            raise CheckError(FIELD, "CERTIFICATE", "the certificate is none of those that the counterparty gave")
        _verify(x509.load_der_x509_certificate(certificate), algorithm, value, _canonical(signed))
        stated = base64.b64decode(
            "".join((signed.findtext(f"{{{DSIG}}}Reference/{{{DSIG}}}DigestValue") or "").split()), validate=True
        )
    except (ValueError, IndexError, binascii.Error, InvalidSignature) as error:
        if isinstance(error, CheckError):
            raise
        raise CheckError(FIELD, "SIGNATURE", f"the signature does not hold: {type(error).__name__}") from None
    place.remove(signature)
    if hashlib.sha256(_canonical(root)).digest() != stated:
        raise CheckError(FIELD, "SIGNATURE", "the message is another one than was signed")
    holder.remove(place)


def _required_form(signed: etree._Element) -> str:
    """The algorithm of a signature whose every other choice is the agreed one."""
    algorithms = [(etree.QName(each).localname, each.get("Algorithm")) for each in signed.iter() if each.get("Algorithm")]
    methods = [algorithm for name, algorithm in algorithms if name == "SignatureMethod"]
    agreed = [
        ("CanonicalizationMethod", _EXCLUSIVE), ("SignatureMethod", methods[0] if methods else ""),
        ("Transform", _ENVELOPED), ("Transform", _EXCLUSIVE), ("DigestMethod", _SHA256),
    ]  # fmt: skip
    references = [each.get("URI") for each in signed.iter(f"{{{DSIG}}}Reference")]
    if algorithms != agreed or references != [""] or methods[0] not in {_ECDSA, _RSA}:
        raise CheckError(FIELD, "SIGNATURE_FORM", "one reference to the whole message, enveloped, exc-c14n, sha256, ecdsa or rsa")
    return methods[0] or ""


def _verify(certificate: x509.Certificate, algorithm: str, value: bytes, octets: bytes) -> None:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and algorithm == _ECDSA:
        half = (key.key_size + 7) // 8
        if len(value) != 2 * half:
            raise InvalidSignature
        parts = int.from_bytes(value[:half]), int.from_bytes(value[half:])
        key.verify(encode_dss_signature(*parts), octets, ec.ECDSA(SHA256()))
    elif isinstance(key, rsa.RSAPublicKey) and algorithm == _RSA:
        key.verify(value, octets, padding.PKCS1v15(), SHA256())
    else:
        raise InvalidSignature


def _holder(root: etree._Element) -> etree._Element:
    """The element that the signature is a part of: the header of a message, or the root of a release."""
    return root[0] if len(root) and etree.QName(root[0]).localname == "AppHdr" else root


def _canonical(element: etree._Element) -> bytes:
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)


def _method(parent: etree._Element, name: str, algorithm: str) -> None:
    etree.SubElement(parent, f"{{{DSIG}}}{name}").set("Algorithm", algorithm)
