"""XML signatures in the business application header (`AppHdr/Sgntr`), made and checked.

A signature is enveloped and covers the whole of what goes over the rail, header and document, but itself: one reference to the root, exclusive
canonicalisation, SHA-256, ECDSA or RSA. The other side is known by the SHA-256 of its certificate, which the signature carries; authorities have no say in
it. Several certificates may be pinned, so that one follows another without a pause. Nothing but the part that was verified is ever read.

Sources: W3C XML Signature Syntax and Processing 1.1; Exclusive XML Canonicalization 1.0; ISO 20022 head.001.001.02, SignatureEnvelope.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureConstructionMethod, SignatureMethod
from signxml.signer import XMLSigner
from signxml.verifier import SignatureConfiguration, XMLVerifier

from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.secret_files import read_secret_file

DSIG: Final = "http://www.w3.org/2000/09/xmldsig#"
ENVELOPED: Final = f"{DSIG}enveloped-signature"
EXCLUSIVE: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
#: Name of a signature's algorithm in settings -> its identifier.
ALGORITHMS: Final = {
    "ecdsa-sha256": "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
    "rsa-sha256": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
}
RSA_BITS_MIN: Final = 2048
EC_BITS_MIN: Final = 256
_FILE_BYTES_MAX: Final = 16_384
#: Where a signature lies: the local name of the element that holds it.
HOLDER: Final = "Sgntr"
FIELD: Final = "AppHdr/Sgntr"

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Signer:
    """Signs what is sent."""

    def __init__(self, key: _Key, certificate: x509.Certificate) -> None:
        """Sign with a key, and show its certificate.

        Raises:
            FieldInvalid: the certificate is another key's, or the key is too short.
        """
        require(certificate.public_key() == key.public_key(), "signatures.certificate_file", "must be the certificate of the key")
        bits_min = EC_BITS_MIN if isinstance(key, ec.EllipticCurvePrivateKey) else RSA_BITS_MIN
        require(key.key_size >= bits_min, "signatures.key_file", f"must hold a key of at least {bits_min} bits")
        self._key = key
        self._certificate = certificate
        self._method = SignatureMethod.ECDSA_SHA256 if isinstance(key, ec.EllipticCurvePrivateKey) else SignatureMethod.RSA_SHA256

    @classmethod
    def read(cls, key_file: Path, certificate_file: Path) -> Signer:
        """A signer of files: PKCS8 PEM without a passphrase, readable by its owner alone, and an X.509 certificate as PEM.

        Raises:
            FieldInvalid: a file holds something else, or others may read the key.
            OSError: a file cannot be read.
        """
        octets = read_secret_file(key_file, _FILE_BYTES_MAX, field="signatures.key_file")
        try:
            key = load_pem_private_key(octets, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        # Raised outside the handler: the library's error may quote what is in the file.
        if not isinstance(key, _Key):
            raise FieldInvalid("signatures.key_file", "must hold an EC or RSA private key, PKCS8 PEM without a passphrase")
        try:
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except ValueError as error:
            raise FieldInvalid("signatures.certificate_file", "must hold an X.509 certificate, PEM") from error
        return cls(key, certificate)

    def sign(self, octets: bytes) -> bytes:
        """What is sent, signed: a message with the signature in its header, or a release with the signature at its end. One that is there is replaced."""
        root = etree.fromstring(octets)
        holder = _holder(root)
        old = holder.find(_holding(holder))
        if old is not None:
            holder.remove(old)
        place = etree.SubElement(holder, _holding(holder), nsmap={None: etree.QName(holder).namespace or ""})
        etree.SubElement(place, f"{{{DSIG}}}Signature", nsmap={"ds": DSIG}).set("Id", "placeholder")
        signer = XMLSigner(
            method=SignatureConstructionMethod.enveloped,
            signature_algorithm=self._method,
            digest_algorithm=DigestAlgorithm.SHA256,
            c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
        )
        signed = signer.sign(root, key=self._key, cert=[self._certificate])
        return etree.tostring(signed, xml_declaration=True, encoding="UTF-8")


class Pinned:
    """The other side's certificates, and the algorithms that are agreed with it."""

    def __init__(self, fingerprints: Iterable[bytes], algorithms: Iterable[str] = tuple(ALGORITHMS)) -> None:
        self._fingerprints = frozenset(fingerprints)
        self._algorithms = {ALGORITHMS[name] for name in algorithms}

    def authentic(self, root: etree._Element, created_at: datetime) -> etree._Element:
        """What of a message is signed, parsed anew and without its signature. `created_at` is when the message says that it was made.

        Raises:
            FieldInvalid: there is no signature where it belongs, or it is not the other side's, or not of this message.
        """
        signatures = list(root.iter(f"{{{DSIG}}}Signature"))
        holder = _holder(root)
        place = holder.find(_holding(holder))
        require(
            place is not None and len(signatures) == 1, FIELD, "must hold the signature that is agreed, and no other may be there"
        )
        require(list(place if place is not None else ()) == signatures, FIELD, "must hold one signature and nothing else")
        self._require_form(signatures[0])
        certificate = self._certificate(signatures[0])
        configuration = SignatureConfiguration(
            location=f"./{'/'.join([*(() if holder is root else (holder.tag,)), _holding(holder)])}/",
            expect_references=1,
            signature_methods=frozenset(SignatureMethod(each) for each in self._algorithms),
            digest_algorithms=frozenset({DigestAlgorithm.SHA256}),
            verification_time=created_at,
        )
        try:
            found = XMLVerifier().verify(root, x509_cert=certificate, expect_config=configuration)
            signed = found.signed_xml if not isinstance(found, list) else None
        except Exception as error:
            raise FieldInvalid(FIELD, f"must be a valid signature over the whole message ({type(error).__name__})") from error
        if signed is None or signed.tag != root.tag:
            raise FieldInvalid(FIELD, "must cover the whole message")
        holder = _holder(signed)
        emptied = holder.find(_holding(holder))
        if emptied is not None:
            holder.remove(emptied)
        return signed

    def _require_form(self, signature: etree._Element) -> None:
        """The algorithms are the agreed ones, and no transformation but these two comes between the message and its digest."""
        told = {
            name: [each.get("Algorithm") for each in signature.iter(f"{{{DSIG}}}{name}")]
            for name in ("CanonicalizationMethod", "SignatureMethod", "Transform", "DigestMethod")
        }
        require(
            told["SignatureMethod"] != [] and set(told["SignatureMethod"]) <= self._algorithms,
            FIELD,
            "must be made by an agreed algorithm",
        )
        require(
            told["CanonicalizationMethod"] == [EXCLUSIVE] and told["Transform"] == [ENVELOPED, EXCLUSIVE],
            FIELD,
            "must be enveloped, with exclusive canonicalisation",
        )
        references = [each.get("URI") for each in signature.iter(f"{{{DSIG}}}Reference")]
        require(references == [""], FIELD, "must have one reference, to the whole message")

    def _certificate(self, signature: etree._Element) -> x509.Certificate:
        shown = [each.text or "" for each in signature.iter(f"{{{DSIG}}}X509Certificate")]
        require(len(shown) == 1, FIELD, "must carry the one certificate that it was made with")
        try:
            octets = base64.b64decode("".join(shown[0].split()), validate=True)
            require(hashlib.sha256(octets).digest() in self._fingerprints, FIELD, "must be made with a certificate that is pinned")
            return x509.load_der_x509_certificate(octets)
        except FieldInvalid:
            raise
        except ValueError as error:
            raise FieldInvalid(FIELD, "must carry the one certificate that it was made with") from error


def _holder(root: etree._Element) -> etree._Element:
    """The element that a signature is a part of: the header of a message, or the root of what has none."""
    return root[0] if len(root) and etree.QName(root[0]).localname == "AppHdr" else root


def _holding(holder: etree._Element) -> str:
    return f"{{{etree.QName(holder).namespace}}}{HOLDER}"
