"""What is agreed with one bank about the messages that pass between us: which, in which business service, signed or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from lxml import etree

from bank_gateway.iso20022.schemas import HEADER, NAMESPACE, RAIL
from bank_gateway.iso20022.signatures import DSIG, HOLDER, Pinned, Signer
from bank_gateway.messages import Kind
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.values import dataclass

_HEADER: Final = f"{{{NAMESPACE}{HEADER}}}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """One bank's; by default messages of every kind that is read here, without signatures."""

    #: Kinds that the bank may send; None: every kind that is read here.
    taken: frozenset[Kind] | None = None
    #: Business service that the bank's headers must name, or "" where none is agreed.
    business_service: str = ""
    #: Makes our signatures; None: nothing is signed.
    signer: Signer | None = None
    #: Knows the bank's; None: what is signed is refused.
    pinned: Pinned | None = None
    #: Elements (`camt.054.001.13 Document/…/Ntry/AddtlNtryInf`) in which the bank may break the schema; one that does is passed over as if it were absent.
    deviations: frozenset[str] = frozenset()

    def seal(self, octets: bytes) -> bytes:
        """What is sent, signed where that is agreed. A message that was marked or changed since is signed anew; its document stays as it is."""
        return octets if self.signer is None else self.signer.sign(octets)

    def authentic(self, root: etree._Element) -> etree._Element:
        """What may be read of a message: where signatures are agreed, the part that is signed, without its signature.

        Raises:
            FieldInvalid: it is signed where that is not agreed, or not as it is agreed.
        """
        if self.pinned is not None:
            return self.pinned.authentic(root, _created_at(root))
        signed = next(root.iter(f"{{{DSIG}}}Signature", f"{_HEADER}{HOLDER}"), None)
        require(signed is None, f"AppHdr/{HOLDER}", "must be absent: signatures are not agreed")
        return root

    def require_taken(self, kind: Kind, service: str | None) -> None:
        """The message is of a kind, and in the service, that is agreed.

        Raises:
            FieldInvalid: it is not.
        """
        require(
            self.taken is None or kind in self.taken, "AppHdr/MsgDefIdr", f"must be agreed with the bank, which {kind.value} is not"
        )
        agreed = self.business_service
        require(not agreed or service == agreed, "AppHdr/BizSvc", f"must be {agreed}, the business service that is agreed")


def release_order(sender: str, receiver: str, uetr: str, key: bytes, name: str, created_at: datetime) -> bytes:
    """The release of a hold, for rails that carry files: who tells whom, under which name, which key of which payment."""
    root = etree.Element(f"{{{RAIL}}}ReleaseOrder", nsmap={None: RAIL})
    moment = created_at.astimezone(UTC).isoformat(timespec="milliseconds")
    for local, text in (
        ("Id", name), ("CreDt", moment), ("Fr", sender), ("To", receiver), ("UETR", uetr), ("Key", key.hex().upper()),
    ):  # fmt: skip
        etree.SubElement(root, f"{{{RAIL}}}{local}").text = text
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _created_at(root: etree._Element) -> datetime:
    """When a message says that it was made; its signature is judged as of then, and covers it."""
    text = root.findtext(f"{_HEADER}AppHdr/{_HEADER}CreDt") or ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid("AppHdr/CreDt", "must be a time") from error
    require(moment.tzinfo is not None, "AppHdr/CreDt", "must name its offset from UTC")
    return moment
