// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// Says publicly that a plan existed before it was decided, and how it ended.
///
///     None --register--> Registered --finalise--> Committed, Aborted or Mixed
///     None --finalise, Aborted-----------------> Aborted      a registration that comes later is refused
///
/// The first outcome is the only one: repeating a call that took effect changes nothing, emits nothing and succeeds, and a call
/// that contradicts one reverts. A plan occupies one slot: 31 bytes of the evidence's hash and its status. The `Finalised` event
/// holds the whole hash.
///
/// Says also since when a Merkle root is known, of a log or of a batch of plans: its kind and its number of leaves, in one slot,
/// which never change. What lies under a root is proven elsewhere (RFC 6962).
///
/// And says of each call for a person, an escalation, that it was opened and that it was resolved, each once: the plan that it is
/// about, and the hashes of two documents that others hold. An escalation that was never opened cannot be resolved.
contract NotaryRegistry is AccessControl {
    enum Status {
        None,
        Registered,
        Committed,
        Aborted,
        Mixed
    }

    /// How a plan ended.
    struct Finalisation {
        /// SHA-256 of the plan's canonical bytes.
        bytes32 planDigest;
        /// Committed, Aborted or Mixed.
        Status outcome;
        /// Hash of the evidence of the outcome.
        bytes32 evidenceHash;
    }

    /// What a root is the root of.
    enum AnchorKind {
        None,
        Checkpoint,
        Registrations,
        Outcomes
    }

    /// A Merkle root (RFC 6962).
    struct Root {
        /// Checkpoint, Registrations or Outcomes.
        AnchorKind kind;
        /// The root.
        bytes32 root;
        /// Number of leaves under it; at least one.
        uint64 size;
    }

    /// What is known of a root; None and zero while nothing is.
    struct Anchor {
        /// What it is the root of.
        AnchorKind kind;
        /// Number of leaves under it.
        uint64 size;
    }

    /// What is said of an escalation.
    enum EscalationKind {
        None,
        Opened,
        Resolved
    }

    /// One thing that is said of an escalation.
    struct EscalationRecord {
        /// SHA-256 of the canonical bytes of the plan that it is about.
        bytes32 planDigest;
        /// SHA-256 of the escalation's id.
        bytes32 escalation;
        /// Opened or Resolved.
        EscalationKind kind;
        /// SHA-256 of the canonical document; never zero.
        bytes32 documentHash;
    }

    /// What is known of an escalation; zero while nothing is.
    struct Escalation {
        /// The plan that it is about.
        bytes32 planDigest;
        /// What was said when it was opened.
        bytes32 opened;
        /// What was said when it was resolved.
        bytes32 resolved;
    }

    bytes32 public constant OPERATOR_ROLE = keccak256("OPERATOR_ROLE");

    uint256 private constant STATUS_MASK = 0xff;

    mapping(bytes32 planDigest => bytes32) private _plans;
    mapping(bytes32 root => Anchor) private _anchors;
    mapping(bytes32 escalation => Escalation) private _escalations;

    /// The plan is known from this block on.
    event Registered(bytes32 indexed planDigest);
    /// The plan ended so.
    event Finalised(bytes32 indexed planDigest, Status indexed outcome, bytes32 evidenceHash);
    /// The root is known from this block on.
    event Anchored(AnchorKind indexed kind, bytes32 indexed root, uint64 size);
    /// This is said of the escalation from this block on.
    event EscalationRecorded(
        bytes32 indexed planDigest, bytes32 indexed escalation, EscalationKind indexed kind, bytes32 documentHash
    );
    /// One item of a batch, a plan, a root or an escalation, took no effect; `reason` is the error with its arguments.
    event Skipped(bytes32 indexed key, bytes reason);

    error BadState(bytes32 planDigest, Status status);
    error OutcomeConflict(bytes32 planDigest, Status outcome);
    error OutcomeInvalid(bytes32 planDigest);
    error AnchorConflict(bytes32 root, AnchorKind kind, uint64 size);
    error AnchorInvalid(bytes32 root);
    error EscalationConflict(bytes32 escalation, EscalationKind kind, bytes32 planDigest, bytes32 documentHash);
    error EscalationUnopened(bytes32 escalation);
    error EscalationInvalid(bytes32 escalation, EscalationKind kind);

    /// The admin gives and takes roles, and has no other power.
    constructor(address admin, address operator) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(OPERATOR_ROLE, operator);
    }

    /// Registers a plan.
    function register(bytes32 planDigest) external onlyRole(OPERATOR_ROLE) {
        _revertWith(_register(planDigest));
    }

    /// Registers each plan that can be; emits `Skipped` for the others.
    function registerMany(bytes32[] calldata planDigests) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < planDigests.length; ++i) {
            _skipIf(planDigests[i], _register(planDigests[i]));
        }
    }

    /// Records how a plan ended.
    function finalise(Finalisation calldata finalisation) external onlyRole(OPERATOR_ROLE) {
        _revertWith(_finalise(finalisation));
    }

    /// Records how each plan ended for which it can be recorded; emits `Skipped` for the others.
    function finaliseMany(Finalisation[] calldata finalisations) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < finalisations.length; ++i) {
            _skipIf(finalisations[i].planDigest, _finalise(finalisations[i]));
        }
    }

    /// Anchors each root that can be; emits `Skipped` for the others.
    function anchorMany(Root[] calldata roots) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < roots.length; ++i) {
            _skipIf(roots[i].root, _anchor(roots[i]));
        }
    }

    /// Records of each escalation what can be; emits `Skipped` for the others, with a key of the escalation and the kind.
    function recordEscalations(EscalationRecord[] calldata records) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < records.length; ++i) {
            bytes memory reason = _recordEscalation(records[i]);
            if (reason.length != 0) emit Skipped(escalationKey(records[i].escalation, records[i].kind), reason);
        }
    }

    /// Where a plan stands.
    function statusOf(bytes32 planDigest) public view returns (Status) {
        return Status(uint256(_plans[planDigest]) & STATUS_MASK);
    }

    /// Where each plan stands, in the order asked.
    function statusOfMany(bytes32[] calldata planDigests) external view returns (Status[] memory statuses) {
        statuses = new Status[](planDigests.length);
        for (uint256 i = 0; i < planDigests.length; ++i) {
            statuses[i] = statusOf(planDigests[i]);
        }
    }

    /// Where a plan stands, and the first 31 bytes of the hash of its evidence; zero before it ended.
    function planOf(bytes32 planDigest) external view returns (Status status, bytes31 evidenceDigest) {
        return (statusOf(planDigest), bytes31(_plans[planDigest]));
    }

    /// What is known of each root, in the order asked.
    function anchorOfMany(bytes32[] calldata roots) external view returns (Anchor[] memory anchors) {
        anchors = new Anchor[](roots.length);
        for (uint256 i = 0; i < roots.length; ++i) {
            anchors[i] = _anchors[roots[i]];
        }
    }

    /// What is known of each escalation, in the order asked.
    function escalationOfMany(bytes32[] calldata escalations) external view returns (Escalation[] memory known) {
        known = new Escalation[](escalations.length);
        for (uint256 i = 0; i < escalations.length; ++i) {
            known[i] = _escalations[escalations[i]];
        }
    }

    /// What `Skipped` names one thing that is said of an escalation by.
    function escalationKey(bytes32 escalation, EscalationKind kind) public pure returns (bytes32) {
        return keccak256(abi.encode(escalation, kind));
    }

    // -- the rules: they return the error, encoded, or nothing if the call holds ---------------------------------------------

    function _register(bytes32 planDigest) private returns (bytes memory reason) {
        Status status = statusOf(planDigest);
        // A registration that was overtaken by the plan's abort must not look as if it had come first.
        if (status == Status.Aborted) return abi.encodeWithSelector(BadState.selector, planDigest, status);
        if (status != Status.None) return reason;
        _plans[planDigest] = bytes32(uint256(Status.Registered));
        emit Registered(planDigest);
    }

    function _finalise(Finalisation calldata finalisation) private returns (bytes memory reason) {
        bytes32 planDigest = finalisation.planDigest;
        Status outcome = finalisation.outcome;
        if (outcome < Status.Committed) return abi.encodeWithSelector(OutcomeInvalid.selector, planDigest);
        bytes32 before = _plans[planDigest];
        Status status = statusOf(planDigest);
        bytes32 slot = bytes32((uint256(finalisation.evidenceHash) & ~STATUS_MASK) | uint256(outcome));
        if (before == slot) return reason;
        if (status >= Status.Committed) return abi.encodeWithSelector(OutcomeConflict.selector, planDigest, status);
        if (status == Status.None && outcome != Status.Aborted) {
            return abi.encodeWithSelector(BadState.selector, planDigest, status);
        }
        _plans[planDigest] = slot;
        emit Finalised(planDigest, outcome, finalisation.evidenceHash);
    }

    function _anchor(Root calldata root) private returns (bytes memory reason) {
        if (root.kind == AnchorKind.None || root.size == 0) return abi.encodeWithSelector(AnchorInvalid.selector, root.root);
        Anchor memory before = _anchors[root.root];
        if (before.kind == root.kind && before.size == root.size) return reason;
        if (before.kind != AnchorKind.None) {
            return abi.encodeWithSelector(AnchorConflict.selector, root.root, before.kind, before.size);
        }
        _anchors[root.root] = Anchor(root.kind, root.size);
        emit Anchored(root.kind, root.root, root.size);
    }

    function _recordEscalation(EscalationRecord calldata told) private returns (bytes memory reason) {
        if (told.kind == EscalationKind.None || told.documentHash == 0) {
            return abi.encodeWithSelector(EscalationInvalid.selector, told.escalation, told.kind);
        }
        Escalation storage known = _escalations[told.escalation];
        bool opens = told.kind == EscalationKind.Opened;
        bytes32 before = opens ? known.opened : known.resolved;
        bool another = known.opened != 0 && known.planDigest != told.planDigest;
        if (another || (before != 0 && before != told.documentHash)) {
            return abi.encodeWithSelector(EscalationConflict.selector, told.escalation, told.kind, known.planDigest, before);
        }
        if (before != 0) return reason;
        if (opens) {
            known.planDigest = told.planDigest;
            known.opened = told.documentHash;
        } else {
            // What was resolved was opened before, and everybody can see since when it was open.
            if (known.opened == 0) return abi.encodeWithSelector(EscalationUnopened.selector, told.escalation);
            known.resolved = told.documentHash;
        }
        emit EscalationRecorded(told.planDigest, told.escalation, told.kind, told.documentHash);
    }

    function _skipIf(bytes32 key, bytes memory reason) private {
        if (reason.length != 0) emit Skipped(key, reason);
    }

    function _revertWith(bytes memory reason) private pure {
        if (reason.length != 0) {
            assembly ("memory-safe") {
                revert(add(reason, 0x20), mload(reason))
            }
        }
    }
}
