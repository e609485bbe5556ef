"""A row that changed is borne out by a call that names it, or by a record that such a call made and that is carried out with it; by nothing else."""

from __future__ import annotations

import json

from fuzz.effects import carried, differences

RECORD = ("notary", "escalation_record")
TRANSACTION = ("notary", "evm_transaction")
ATTEMPT = ("notary", "evm_attempt")
SIGNER = ("notary", "evm_signer")


def rows(*of: dict[str, object]) -> frozenset[str]:
    return frozenset(json.dumps(each) for each in of)


def test_what_carries_a_record_is_borne_out_however_late() -> None:
    """The transaction, its attempts and its account; once more when it becomes final, batches later."""
    record = rows({"escalation_id": "ESCALATION-1", "intent_key": "key-1"})
    waiting = {
        RECORD: rows({"escalation_id": "ESCALATION-1", "intent_key": None}),
        SIGNER: rows({"address": "0xa", "next_nonce": 1}),
    }
    sent = {
        RECORD: record,
        TRANSACTION: rows({"id": 7, "idempotency_key": "key-1", "signer": "0xa", "state": "sent"}),
        ATTEMPT: rows({"transaction_id": 7, "number": 1}),
        SIGNER: rows({"address": "0xa", "next_nonce": 2}),
    }
    final = sent | {TRANSACTION: rows({"id": 7, "idempotency_key": "key-1", "signer": "0xa", "state": "final"})}
    named = {"ESCALATION-1"}
    assert len(list(differences(waiting, sent, named))) == 4
    assert not list(differences(waiting, sent, named, carried(sent, named)))
    assert not list(differences(sent, final, (), carried(final, named)))


def test_another_transaction_is_borne_out_by_nothing() -> None:
    """Also one of the same kind, of an account that carries nothing, and one that a record points at which no accepted call is about."""
    before = {SIGNER: rows({"address": "0xb", "next_nonce": 1})}
    after = {
        RECORD: rows(
            {"escalation_id": "ESCALATION-1", "intent_key": "key-1"}, {"escalation_id": "ESCALATION-2", "intent_key": "key-2"}
        ),
        TRANSACTION: rows(
            {"id": 7, "idempotency_key": "key-2", "signer": "0xb", "plan_id": None},
            {"id": 8, "idempotency_key": "ESCALATION-1", "signer": "0xb", "plan_id": None},
        ),
        ATTEMPT: rows({"transaction_id": 7, "number": 1}, {"transaction_id": 8, "number": 1}),
        SIGNER: rows({"address": "0xb", "next_nonce": 2}),
    }
    found = list(differences(before, after, {"ESCALATION-1"}, carried(after, {"ESCALATION-1"})))
    assert len([each for each in found if "ESCALATION-2" in each]) == 1
    assert len([each for each in found if "evm_attempt" in each]) == 2
    assert len([each for each in found if "evm_signer" in each]) == 2
