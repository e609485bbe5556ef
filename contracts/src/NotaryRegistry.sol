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

    bytes32 public constant OPERATOR_ROLE = keccak256("OPERATOR_ROLE");

    uint256 private constant STATUS_MASK = 0xff;

    mapping(bytes32 planDigest => bytes32) private _plans;

    /// The plan is known from this block on.
    event Registered(bytes32 indexed planDigest);
    /// The plan ended so.
    event Finalised(bytes32 indexed planDigest, Status indexed outcome, bytes32 evidenceHash);
    /// One item of a batch took no effect; `reason` is the error with its arguments.
    event Skipped(bytes32 indexed planDigest, bytes reason);

    error BadState(bytes32 planDigest, Status status);
    error OutcomeConflict(bytes32 planDigest, Status outcome);
    error OutcomeInvalid(bytes32 planDigest);

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

    function _skipIf(bytes32 planDigest, bytes memory reason) private {
        if (reason.length != 0) emit Skipped(planDigest, reason);
    }

    function _revertWith(bytes memory reason) private pure {
        if (reason.length != 0) {
            assembly ("memory-safe") {
                revert(add(reason, 0x20), mload(reason))
            }
        }
    }
}
