// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Leg, LegTerms} from "./LegTerms.sol";

/// The one function of a controlled token (ERC-3643) that a reversal needs.
interface IControlledToken {
    function forcedTransfer(address from, address to, uint256 amount) external returns (bool);
}

/// An allowance for this contract that the payer of a leg signed (EIP-2612): an authority beside the payer's signature, no term of the leg.
struct Permit {
    /// Allowance in minor units.
    uint256 value;
    /// Unix seconds; the token refuses it in a later block. 0: there is no permit.
    uint256 deadline;
    /// The signature.
    uint8 v;
    bytes32 r;
    bytes32 s;
}

/// Holds a payer's tokens between a plan's Prepare and its decision.
///
///     None --prepare--> Prepared --commit, key--> Committed     the payee is paid
///                       Prepared --abort-------> Aborted       the payer is refunded
///     None --abort, tombstone------------------> Aborted       a prepare that comes later is refused
///     Prepared --announce, 7 days, execute-----> Committed or Aborted, as announced; until then commit and abort still win
///     Committed --reverse----------------------> Reversed      the payer has the amount back
///
/// - Aborted and Reversed are final, and there is no path from Aborted to Committed or back.
/// - A reversal takes exactly the amount from the payee and gives it to the payer, or changes nothing. It needs what is still claimable
///   by the payee, or a token that has a controller and made this contract one: elsewhere what was paid stays paid.
/// - A hold never expires: once prepared, only the decision, or the arbiter in the open and after seven days, ends it.
/// - Nothing is taken without the payer's signature over all terms, and nothing is paid to anybody whom the terms do not name.
///   The operator alone can move nothing: commit needs the key that the terms are locked with.
/// - A permit is used where the allowance does not suffice, and only for a leg that its payer signed. Its failure is not looked at: whoever
///   used it before has given the allowance. The transfer decides.
/// - Repeating a call that took effect changes nothing, emits nothing and succeeds. A call that contradicts one reverts.
/// - If a payout or refund fails, its owner may claim the amount later, and the leg is done all the same.
/// - For every token that keeps its promises, balance >= lockedTotal + claimableTotal.
///
/// A leg occupies one slot: 31 bytes of the hash of its terms and its status. Callers send the terms again; the `Prepared`
/// event holds them.
contract SettlementEscrow is LegTerms, AccessControl, Pausable, ReentrancyGuard {
    using SafeERC20 for IERC20;

    enum Status {
        None,
        Prepared,
        Committed,
        Aborted,
        Reversed
    }

    enum Side {
        Payee,
        Payer
    }

    /// An arbiter's announcement that a hold will be ended.
    struct Announcement {
        Side payTo;
        /// Unix seconds; 0 if nothing is announced.
        uint64 executableAt;
    }

    bytes32 public constant OPERATOR_ROLE = keccak256("OPERATOR_ROLE");
    bytes32 public constant ARBITER_ROLE = keccak256("ARBITER_ROLE");
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");

    /// How long an announcement stands before it can be executed.
    uint256 public constant ANNOUNCEMENT_SECONDS = 7 days;

    /// Gas that one prepare of a batch may use, so that a hostile token or wallet cannot burn what the others need.
    uint256 public constant PREPARE_GAS_MAX = 1_000_000;
    /// Gas of those that a permit may use; the rest is for the transfer.
    uint256 public constant PERMIT_GAS_MAX = 300_000;
    /// Gas that one reversal of a batch may use, for the same reason.
    uint256 public constant REVERSE_GAS_MAX = 1_000_000;
    /// Gas that the token may use in a payout or refund. A token that wants more is claimed, not paid out.
    uint256 public constant TRANSFER_GAS_MAX = 400_000;
    // Gas that must be left before the one or the other begins: a call gets at most 63/64 of what is left (EIP-150), and what
    // follows it costs something too. So a batch that runs short skips its last items, and keeps what it did before.
    uint256 private constant PREPARE_GAS_LEFT_MIN = PREPARE_GAS_MAX + PREPARE_GAS_MAX / 32 + 30_000;
    uint256 private constant REVERSE_GAS_LEFT_MIN = REVERSE_GAS_MAX + REVERSE_GAS_MAX / 32 + 30_000;
    uint256 private constant TRANSFER_GAS_LEFT_MIN = TRANSFER_GAS_MAX + TRANSFER_GAS_MAX / 32 + 80_000;
    // Bytes of a failed item's answer that are kept: a hostile token may answer with a megabyte.
    uint256 private constant REASON_BYTES_MAX = 260;

    uint256 private constant STATUS_MASK = 0xff;
    bytes32 private constant TOMBSTONE = bytes32(uint256(Status.Aborted));

    mapping(bytes32 legKey => bytes32) private _legs;
    mapping(bytes32 legKey => Announcement) private _announcements;

    /// Minor units that prepared legs hold, by token.
    mapping(address token => uint256) public lockedTotal;
    /// Minor units that wait to be claimed, by token.
    mapping(address token => uint256) public claimableTotal;
    /// Minor units that wait to be claimed, by token and owner.
    mapping(address token => mapping(address owner => uint256)) public claimableOf;

    /// The payer's tokens are held.
    event Prepared(bytes32 indexed legKey, Leg terms);
    /// The hold was paid out to the payee, or, if not `paid`, became claimable by it.
    event Committed(bytes32 indexed legKey, address indexed token, address indexed payee, uint256 amount, bytes32 key, bool paid);
    /// The hold was refunded to the payer, or, if not `paid`, became claimable by it.
    event Aborted(bytes32 indexed legKey, address indexed token, address indexed payer, uint256 amount, bool paid);
    /// What was paid out is the payer's again: moved by the token's controller function from the payee if `forced`, else what the payee could
    /// have claimed; then, if not `paid`, the payer can claim it.
    event Reversed(
        bytes32 indexed legKey,
        address indexed token,
        address indexed payer,
        address payee,
        uint256 amount,
        bool forced,
        bool paid
    );
    /// The leg was aborted before it was prepared.
    event Tombstoned(bytes32 indexed legKey);
    /// One item of a batch took no effect; `reason` is the error with its arguments, cut off at 260 bytes.
    event Skipped(bytes32 indexed legKey, bytes reason);
    /// An arbiter will end the hold in favour of `payTo`, unless commit or abort comes first.
    event Announced(bytes32 indexed legKey, Side payTo, uint64 executableAt);
    /// An arbiter took an announcement back.
    event Retracted(bytes32 indexed legKey);
    /// An arbiter ended the hold; the amount went to `owner`, or, if not `paid`, became claimable by it.
    event Executed(bytes32 indexed legKey, address indexed token, address indexed owner, Side payTo, uint256 amount, bool paid);
    /// What had become claimable was paid to its owner.
    event Claimed(address indexed token, address indexed owner, uint256 amount);

    error BadState(bytes32 legKey, Status status);
    error TermsConflict(bytes32 legKey);
    error TermsInvalid(bytes32 legKey);
    error PrepareTooLate(bytes32 legKey, uint64 prepareBy);
    error SignatureInvalid(bytes32 legKey, address payer);
    error TransferNotExact(address token, uint256 expected, uint256 received);
    error PrepareFailed(bytes32 legKey);
    error ReverseFailed(bytes32 legKey);
    error NotControlled(address token);
    error KeyWrong(bytes32 legKey);
    error GasTooLow(bytes32 legKey);
    error NotAnnounced(bytes32 legKey);
    error AnnouncedTooRecently(bytes32 legKey, uint64 executableAt);
    error NothingClaimable(address token, address owner);
    error LengthsDiffer(uint256 legs, uint256 others);
    error OnlyItself();

    /// The admin gives and takes roles, and has no other power.
    constructor(address admin, address operator, address arbiter, address pauser) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(OPERATOR_ROLE, operator);
        _grantRole(ARBITER_ROLE, arbiter);
        _grantRole(PAUSER_ROLE, pauser);
    }

    // -- single legs ---------------------------------------------------------------------------------------------------

    /// Takes the tokens from the payer, who signed these terms and allows this contract to spend them, by a permit or before.
    function prepare(
        Leg calldata leg,
        bytes calldata signature,
        Permit calldata permit
    ) external onlyRole(OPERATOR_ROLE) nonReentrant {
        _prepare(leg, signature, permit);
    }

    /// Pays the payee; `key` is the preimage of the lock.
    function commit(Leg calldata leg, bytes32 key) external onlyRole(OPERATOR_ROLE) nonReentrant {
        _revertWith(_commit(leg, key));
    }

    /// Refunds the payer; a leg that was never prepared will never be.
    function abort(Leg calldata leg) external onlyRole(OPERATOR_ROLE) nonReentrant {
        _revertWith(_abort(leg));
    }

    /// Gives the payer back what the payee was paid, whole, or reverts.
    function reverse(Leg calldata leg) external onlyRole(OPERATOR_ROLE) nonReentrant {
        _reverse(leg);
    }

    /// Aborts a leg that was never prepared, and whose terms the caller need not know.
    function tombstone(bytes32 legKey) external onlyRole(OPERATOR_ROLE) {
        _revertWith(_tombstone(legKey));
    }

    // -- batches: each item for itself, the outcome by events or `statusOf`, never by the receipt's status ------------------

    /// Prepares each leg that can be; emits `Skipped` for the others. `permits` is empty where no leg of the batch has one.
    function tryPrepareMany(
        Leg[] calldata legs,
        bytes[] calldata signatures,
        Permit[] calldata permits
    ) external onlyRole(OPERATOR_ROLE) nonReentrant {
        if (legs.length != signatures.length) revert LengthsDiffer(legs.length, signatures.length);
        if (permits.length != 0 && legs.length != permits.length) revert LengthsDiffer(legs.length, permits.length);
        Permit memory permit;
        for (uint256 i = 0; i < legs.length; ++i) {
            if (permits.length != 0) permit = permits[i];
            bytes memory item = abi.encodeCall(this.prepareItem, (legs[i], signatures[i], permit));
            bytes32 legKey = _keyOf(legs[i]);
            _skipIf(legKey, _tryItem(legKey, item, PREPARE_GAS_MAX, PREPARE_GAS_LEFT_MIN, PrepareFailed.selector));
        }
    }

    /// Commits each leg that can be; emits `Skipped` for the others.
    function tryCommitMany(Leg[] calldata legs, bytes32[] calldata keys) external onlyRole(OPERATOR_ROLE) nonReentrant {
        if (legs.length != keys.length) revert LengthsDiffer(legs.length, keys.length);
        for (uint256 i = 0; i < legs.length; ++i) {
            _skipIf(_keyOf(legs[i]), _commit(legs[i], keys[i]));
        }
    }

    /// Aborts each leg that can be; emits `Skipped` for the others.
    function tryAbortMany(Leg[] calldata legs) external onlyRole(OPERATOR_ROLE) nonReentrant {
        for (uint256 i = 0; i < legs.length; ++i) {
            _skipIf(_keyOf(legs[i]), _abort(legs[i]));
        }
    }

    /// Reverses each leg that can be; emits `Skipped` for the others.
    function tryReverseMany(Leg[] calldata legs) external onlyRole(OPERATOR_ROLE) nonReentrant {
        for (uint256 i = 0; i < legs.length; ++i) {
            bytes memory item = abi.encodeCall(this.reverseItem, (legs[i]));
            bytes32 legKey = _keyOf(legs[i]);
            _skipIf(legKey, _tryItem(legKey, item, REVERSE_GAS_MAX, REVERSE_GAS_LEFT_MIN, ReverseFailed.selector));
        }
    }

    /// Tombstones each leg that can be; emits `Skipped` for the others.
    function tryTombstoneMany(bytes32[] calldata legKeys) external onlyRole(OPERATOR_ROLE) {
        for (uint256 i = 0; i < legKeys.length; ++i) {
            _skipIf(legKeys[i], _tombstone(legKeys[i]));
        }
    }

    /// One prepare of a batch, in a call of its own so that a failure undoes the transfer. Only this contract calls it.
    function prepareItem(Leg calldata leg, bytes calldata signature, Permit calldata permit) external {
        if (msg.sender != address(this)) revert OnlyItself();
        _prepare(leg, signature, permit);
    }

    /// One reversal of a batch, in the same way.
    function reverseItem(Leg calldata leg) external {
        if (msg.sender != address(this)) revert OnlyItself();
        _reverse(leg);
    }

    // -- the arbiter -----------------------------------------------------------------------------------------------------

    /// Starts the seven days after which a hold that nobody decides is ended. Announcing the other side starts them anew.
    function announce(bytes32 legKey, Side payTo) external onlyRole(ARBITER_ROLE) {
        Status status = statusOf(legKey);
        if (status != Status.Prepared) revert BadState(legKey, status);
        Announcement memory announced = _announcements[legKey];
        if (announced.executableAt != 0 && announced.payTo == payTo) return;
        uint64 executableAt = uint64(block.timestamp + ANNOUNCEMENT_SECONDS);
        _announcements[legKey] = Announcement(payTo, executableAt);
        emit Announced(legKey, payTo, executableAt);
    }

    /// Takes an announcement back.
    function retract(bytes32 legKey) external onlyRole(ARBITER_ROLE) {
        if (_announcements[legKey].executableAt == 0) return;
        delete _announcements[legKey];
        emit Retracted(legKey);
    }

    /// Ends a hold as announced, once the seven days are over. It needs no key: this is the way out when the key is lost.
    function execute(Leg calldata leg) external onlyRole(ARBITER_ROLE) nonReentrant {
        bytes32 legKey = _keyOf(leg);
        bytes32 slot = _legs[legKey];
        Status status = _statusIn(slot);
        Announcement memory announced = _announcements[legKey];
        if (announced.executableAt == 0) revert NotAnnounced(legKey);
        bytes32 terms = _structHash(leg);
        if (!_holds(slot, terms)) revert TermsConflict(legKey);
        Status result = announced.payTo == Side.Payee ? Status.Committed : Status.Aborted;
        if (status == result) return;
        if (status != Status.Prepared) revert BadState(legKey, status);
        if (block.timestamp < announced.executableAt) revert AnnouncedTooRecently(legKey, announced.executableAt);
        if (gasleft() < TRANSFER_GAS_LEFT_MIN) revert GasTooLow(legKey);
        _legs[legKey] = _slot(terms, result);
        address owner = announced.payTo == Side.Payee ? leg.payee : leg.payer;
        bool paid = _payOut(leg.token, owner, leg.amount);
        emit Executed(legKey, leg.token, owner, announced.payTo, leg.amount, paid);
    }

    // -- anybody -------------------------------------------------------------------------------------------------------------

    /// Pays what is claimable to its owner, whoever calls.
    function claim(address token, address owner) external nonReentrant {
        uint256 amount = claimableOf[token][owner];
        if (amount == 0) revert NothingClaimable(token, owner);
        claimableOf[token][owner] = 0;
        claimableTotal[token] -= amount;
        emit Claimed(token, owner, amount);
        IERC20(token).safeTransfer(owner, amount);
    }

    /// Where a leg stands.
    function statusOf(bytes32 legKey) public view returns (Status) {
        return _statusIn(_legs[legKey]);
    }

    /// Where each leg stands, in the order asked.
    function statusOfMany(bytes32[] calldata legKeys) external view returns (Status[] memory statuses) {
        statuses = new Status[](legKeys.length);
        for (uint256 i = 0; i < legKeys.length; ++i) {
            statuses[i] = statusOf(legKeys[i]);
        }
    }

    /// Where a leg stands, and the first 31 bytes of the EIP-712 struct hash of its terms; zero if it was tombstoned by its key alone.
    function legOf(bytes32 legKey) external view returns (Status status, bytes31 termsDigest) {
        bytes32 slot = _legs[legKey];
        return (_statusIn(slot), bytes31(slot));
    }

    /// What an arbiter announced about a hold that still stands; `executableAt` is 0 if nothing.
    function announcementOf(bytes32 legKey) external view returns (Side payTo, uint64 executableAt) {
        if (statusOf(legKey) != Status.Prepared) return (Side.Payee, 0);
        Announcement memory announced = _announcements[legKey];
        return (announced.payTo, announced.executableAt);
    }

    // -- the pauser ----------------------------------------------------------------------------------------------------------

    /// Refuses further prepares. What is held can still be committed, aborted, executed and claimed.
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    /// Allows prepares again.
    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    // -- the rules: a function that returns bytes returns the error, encoded, or nothing if the call holds ---------------------

    function _prepare(Leg calldata leg, bytes calldata signature, Permit calldata permit) private {
        bytes32 legKey = _keyOf(leg);
        bytes32 terms = _structHash(leg);
        bytes32 slot = _legs[legKey];
        if (slot != 0) {
            Status status = _statusIn(slot);
            if (status == Status.Aborted) revert BadState(legKey, status);
            if (!_holds(slot, terms)) revert TermsConflict(legKey);
            if (status == Status.Reversed) revert BadState(legKey, status);
            return;
        }
        _requireNotPaused();
        if (block.timestamp > leg.prepareBy) revert PrepareTooLate(legKey, leg.prepareBy);
        if (!_isSound(leg)) revert TermsInvalid(legKey);
        if (!_isSignedBy(leg.payer, _signingHash(terms), signature)) revert SignatureInvalid(legKey, leg.payer);
        _legs[legKey] = _slot(terms, Status.Prepared);
        lockedTotal[leg.token] += leg.amount;
        emit Prepared(legKey, leg);
        if (permit.deadline != 0) _usePermit(leg, permit);
        _pull(leg.token, leg.payer, leg.amount);
    }

    /// Calls this contract with one item of a batch, so that whatever it did is undone if it fails.
    function _tryItem(
        bytes32 legKey,
        bytes memory item,
        uint256 gasMax,
        uint256 gasLeftMin,
        bytes4 failure
    ) private returns (bytes memory reason) {
        if (gasleft() < gasLeftMin) return abi.encodeWithSelector(GasTooLow.selector, legKey);
        bool failed;
        assembly ("memory-safe") {
            failed := iszero(call(gasMax, address(), 0, add(item, 0x20), mload(item), 0, 0))
            if failed {
                let length := returndatasize()
                if gt(length, REASON_BYTES_MAX) {
                    length := REASON_BYTES_MAX
                }
                reason := mload(0x40)
                mstore(reason, length)
                returndatacopy(add(reason, 0x20), 0, length)
                mstore(0x40, and(add(add(reason, 0x3f), length), not(0x1f)))
            }
        }
        // A failure without a word, such as a token that burns all gas, must not pass for success.
        if (failed && reason.length == 0) reason = abi.encodeWithSelector(failure, legKey);
    }

    function _commit(Leg calldata leg, bytes32 key) private returns (bytes memory reason) {
        bytes32 legKey = _keyOf(leg);
        bytes32 terms = _structHash(leg);
        bytes32 slot = _legs[legKey];
        Status status = _statusIn(slot);
        if (status == Status.None || slot == TOMBSTONE) return _badState(legKey, status);
        if (!_holds(slot, terms)) return abi.encodeWithSelector(TermsConflict.selector, legKey);
        if (sha256(abi.encode(key)) != leg.lock) return abi.encodeWithSelector(KeyWrong.selector, legKey);
        if (status == Status.Aborted || status == Status.Reversed) return _badState(legKey, status);
        if (status == Status.Committed) return reason;
        if (gasleft() < TRANSFER_GAS_LEFT_MIN) return abi.encodeWithSelector(GasTooLow.selector, legKey);
        _legs[legKey] = _slot(terms, Status.Committed);
        bool paid = _payOut(leg.token, leg.payee, leg.amount);
        emit Committed(legKey, leg.token, leg.payee, leg.amount, key, paid);
    }

    function _abort(Leg calldata leg) private returns (bytes memory reason) {
        bytes32 legKey = _keyOf(leg);
        bytes32 slot = _legs[legKey];
        if (slot == 0 || slot == TOMBSTONE) return _tombstone(legKey);
        bytes32 terms = _structHash(leg);
        Status status = _statusIn(slot);
        if (!_holds(slot, terms)) return abi.encodeWithSelector(TermsConflict.selector, legKey);
        if (status == Status.Committed || status == Status.Reversed) return _badState(legKey, status);
        if (status == Status.Aborted) return reason;
        if (gasleft() < TRANSFER_GAS_LEFT_MIN) return abi.encodeWithSelector(GasTooLow.selector, legKey);
        _legs[legKey] = _slot(terms, Status.Aborted);
        bool paid = _payOut(leg.token, leg.payer, leg.amount);
        emit Aborted(legKey, leg.token, leg.payer, leg.amount, paid);
    }

    function _reverse(Leg calldata leg) private {
        bytes32 legKey = _keyOf(leg);
        bytes32 terms = _structHash(leg);
        bytes32 slot = _legs[legKey];
        Status status = _statusIn(slot);
        if (status == Status.None || slot == TOMBSTONE) revert BadState(legKey, status);
        if (!_holds(slot, terms)) revert TermsConflict(legKey);
        if (status == Status.Reversed) return;
        if (status != Status.Committed) revert BadState(legKey, status);
        _legs[legKey] = _slot(terms, Status.Reversed);
        // What never reached the payee need not be taken from it.
        bool forced = claimableOf[leg.token][leg.payee] < leg.amount;
        bool paid = true;
        if (forced) {
            _force(leg);
        } else {
            claimableOf[leg.token][leg.payee] -= leg.amount;
            paid = _tryTransfer(leg.token, leg.payer, leg.amount);
            if (paid) claimableTotal[leg.token] -= leg.amount;
            else claimableOf[leg.token][leg.payer] += leg.amount;
        }
        emit Reversed(legKey, leg.token, leg.payer, leg.payee, leg.amount, forced, paid);
    }

    /// Moves exactly the amount from the payee to the payer as the token's controller, or reverts.
    function _force(Leg calldata leg) private {
        uint256 payeeHad = IERC20(leg.token).balanceOf(leg.payee);
        uint256 payerHad = IERC20(leg.token).balanceOf(leg.payer);
        bytes memory move = abi.encodeCall(IControlledToken.forcedTransfer, (leg.payee, leg.payer, leg.amount));
        (bool moved, bytes memory answer) = leg.token.call(move);
        if (!moved) _revertWith(answer);
        // A token that has no such function, or that says no without a word.
        if (!moved || (answer.length != 0 && !abi.decode(answer, (bool)))) revert NotControlled(leg.token);
        uint256 received = IERC20(leg.token).balanceOf(leg.payer) - payerHad;
        uint256 taken = payeeHad - IERC20(leg.token).balanceOf(leg.payee);
        if (taken != leg.amount) revert TransferNotExact(leg.token, leg.amount, taken);
        if (received != leg.amount) revert TransferNotExact(leg.token, leg.amount, received);
    }

    function _tombstone(bytes32 legKey) private returns (bytes memory reason) {
        Status status = statusOf(legKey);
        if (status == Status.Aborted) return reason;
        if (status != Status.None) return _badState(legKey, status);
        _legs[legKey] = TOMBSTONE;
        emit Tombstoned(legKey);
    }

    /// Whether the terms can be settled at all; whoever pays has signed them, so this protects from mistakes.
    function _isSound(Leg calldata leg) private view returns (bool) {
        return
            leg.amount != 0 &&
            leg.amount <= type(uint96).max &&
            leg.payee != address(0) &&
            leg.payee != leg.payer &&
            leg.payee != leg.token &&
            leg.payee != address(this) &&
            leg.payer != address(this) &&
            leg.token.code.length != 0;
    }

    /// Turns a permit into an allowance, where there is not enough of one. A permit sets the allowance: one that is not needed would lower what
    /// other legs of the payer count on.
    function _usePermit(Leg calldata leg, Permit calldata permit) private {
        if (IERC20(leg.token).allowance(leg.payer, address(this)) >= leg.amount) return;
        bytes memory allow = abi.encodeCall(
            IERC20Permit.permit,
            (leg.payer, address(this), permit.value, permit.deadline, permit.v, permit.r, permit.s)
        );
        address token = leg.token;
        assembly ("memory-safe") {
            pop(call(PERMIT_GAS_MAX, token, 0, add(allow, 0x20), mload(allow), 0, 0))
        }
    }

    /// Takes exactly `amount`, or reverts.
    function _pull(address token, address payer, uint256 amount) private {
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(payer, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != amount) revert TransferNotExact(token, amount, received);
    }

    /// Ends a hold: pays its owner, or lets the owner claim the amount. Returns whether it was paid.
    function _payOut(address token, address owner, uint256 amount) private returns (bool paid) {
        lockedTotal[token] -= amount;
        paid = _tryTransfer(token, owner, amount);
        if (!paid) {
            claimableOf[token][owner] += amount;
            claimableTotal[token] += amount;
        }
    }

    /// ERC-20 transfer that cannot revert, whatever the token does; true if the token says so, or says nothing and is a contract.
    function _tryTransfer(address token, address to, uint256 amount) private returns (bool done) {
        bytes memory transfer = abi.encodeCall(IERC20.transfer, (to, amount));
        assembly ("memory-safe") {
            mstore(0x00, 0)
            done := call(TRANSFER_GAS_MAX, token, 0, add(transfer, 0x20), mload(transfer), 0x00, 0x20)
            done := and(done, or(eq(mload(0x00), 1), and(iszero(returndatasize()), gt(extcodesize(token), 0))))
        }
    }

    function _skipIf(bytes32 legKey, bytes memory reason) private {
        if (reason.length != 0) emit Skipped(legKey, reason);
    }

    function _revertWith(bytes memory reason) private pure {
        if (reason.length != 0) {
            assembly ("memory-safe") {
                revert(add(reason, 0x20), mload(reason))
            }
        }
    }

    function _badState(bytes32 legKey, Status status) private pure returns (bytes memory) {
        return abi.encodeWithSelector(BadState.selector, legKey, status);
    }

    function _keyOf(Leg calldata leg) private pure returns (bytes32) {
        return legKeyOf(leg.planDigest, leg.legIdHash);
    }

    function _slot(bytes32 terms, Status status) private pure returns (bytes32) {
        return bytes32((uint256(terms) & ~STATUS_MASK) | uint256(status));
    }

    function _statusIn(bytes32 slot) private pure returns (Status) {
        return Status(uint256(slot) & STATUS_MASK);
    }

    function _holds(bytes32 slot, bytes32 terms) private pure returns (bool) {
        return bytes31(slot) == bytes31(terms);
    }
}
