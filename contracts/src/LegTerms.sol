// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// What a payer signs: one transfer of one plan, complete, so that nothing about it can be changed afterwards.
struct Leg {
    /// SHA-256 of the plan's canonical bytes.
    bytes32 planDigest;
    /// keccak256 of the leg's id in the plan, as UTF-8.
    bytes32 legIdHash;
    /// The ERC-20 contract.
    address token;
    /// Whom the tokens come from.
    address payer;
    /// Whom the tokens go to if the plan commits.
    address payee;
    /// Minor units, 1 to 2^96 - 1.
    uint256 amount;
    /// SHA-256 of the 32-byte key that commits this leg.
    bytes32 lock;
    /// Unix seconds; a prepare in a later block is refused.
    uint64 prepareBy;
}

/// Names, hashes and signatures of legs (EIP-712, ERC-1271, ERC-5267).
///
/// The domain and the ERC-1271 call are written out here because OpenZeppelin's own, since 5.5, need opcodes of the Cancun fork,
/// and this contract must run on chains that are still at Paris. Signatures of accounts are OpenZeppelin's ECDSA.
abstract contract LegTerms is IERC5267 {
    string private constant DOMAIN_NAME = "Lockstep SettlementEscrow";
    string private constant DOMAIN_VERSION = "1";
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant LEG_TYPEHASH =
        keccak256(
            "Leg(bytes32 planDigest,bytes32 legIdHash,address token,address payer,address payee,uint256 amount,bytes32 lock,uint64 prepareBy)"
        );

    uint256 private immutable _deployedChain = block.chainid;
    bytes32 private immutable _deployedDomain = _buildDomain();

    /// The name of a leg on this contract: keccak256(abi.encode(planDigest, keccak256(bytes(legId)))).
    function legKeyOf(bytes32 planDigest, bytes32 legIdHash) public pure returns (bytes32) {
        return keccak256(abi.encode(planDigest, legIdHash));
    }

    /// The EIP-712 digest that the payer of a leg signs.
    function signingHash(Leg calldata leg) external view returns (bytes32) {
        return _signingHash(_structHash(leg));
    }

    /// The fields of the domain, for wallets (ERC-5267).
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        )
    {
        return (0x0f, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    function _structHash(Leg calldata leg) internal pure returns (bytes32) {
        // Every member is one word, so the ABI's encoding of the struct is EIP-712's.
        return keccak256(abi.encode(LEG_TYPEHASH, leg));
    }

    function _signingHash(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", _domain(), structHash));
    }

    /// Whether `signer` signed `hash`: a contract is asked (ERC-1271), an account's signature is recovered.
    function _isSignedBy(address signer, bytes32 hash, bytes calldata signature) internal view returns (bool) {
        if (signer.code.length == 0) {
            (address recovered, ECDSA.RecoverError failure, ) = ECDSA.tryRecoverCalldata(hash, signature);
            return failure == ECDSA.RecoverError.NoError && recovered == signer;
        }
        (bool answered, bytes memory answer) = signer.staticcall(abi.encodeCall(IERC1271.isValidSignature, (hash, signature)));
        return answered && answer.length >= 32 && abi.decode(answer, (bytes32)) == bytes32(IERC1271.isValidSignature.selector);
    }

    function _domain() private view returns (bytes32) {
        // After a fork of the chain, signatures for the one side must not hold on the other.
        return block.chainid == _deployedChain ? _deployedDomain : _buildDomain();
    }

    function _buildDomain() private view returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    DOMAIN_TYPEHASH,
                    keccak256(bytes(DOMAIN_NAME)),
                    keccak256(bytes(DOMAIN_VERSION)),
                    block.chainid,
                    address(this)
                )
            );
    }
}
