// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// An ERC-20 whose owner mints and names its controllers (ERC-3643: agents), and which takes permits (EIP-2612): money for the sandbox and for
/// tests.
///
/// Permits are written out here because OpenZeppelin's ERC20Permit, since 5.5, needs opcodes of the Cancun fork.
contract SandboxToken is ERC20, IERC20Permit, Nonces, Ownable {
    string private constant DOMAIN_VERSION = "1";
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    uint8 private immutable _decimals;
    mapping(address account => bool) private _agents;

    /// `agent` may move anybody's tokens from now on.
    event AgentAdded(address indexed agent);
    /// `agent` may not any more.
    event AgentRemoved(address indexed agent);

    error NotAgent(address account);
    error PermitExpired(uint256 deadline);
    error PermitSignerInvalid(address signer, address owner);

    constructor(
        string memory name,
        string memory symbol,
        uint8 decimals_,
        address owner
    ) ERC20(name, symbol) Ownable(owner) {
        _decimals = decimals_;
    }

    /// Creates `amount` minor units for `to`.
    function mint(address to, uint256 amount) external onlyOwner {
        _mint(to, amount);
    }

    /// Lets `agent` move anybody's tokens.
    function addAgent(address agent) external onlyOwner {
        if (_agents[agent]) return;
        _agents[agent] = true;
        emit AgentAdded(agent);
    }

    /// Lets `agent` do so no longer.
    function removeAgent(address agent) external onlyOwner {
        if (!_agents[agent]) return;
        _agents[agent] = false;
        emit AgentRemoved(agent);
    }

    /// Moves `amount` minor units, whoever owns them.
    function forcedTransfer(address from, address to, uint256 amount) external returns (bool) {
        if (!_agents[msg.sender]) revert NotAgent(msg.sender);
        _transfer(from, to, amount);
        return true;
    }

    /// Sets the allowance that `owner` signed for `spender`, whoever calls.
    function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        if (block.timestamp > deadline) revert PermitExpired(deadline);
        bytes32 terms = keccak256(abi.encode(PERMIT_TYPEHASH, owner, spender, value, _useNonce(owner), deadline));
        address signer = ECDSA.recover(keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), terms)), v, r, s);
        if (signer != owner) revert PermitSignerInvalid(signer, owner);
        _approve(owner, spender, value);
    }

    /// Whether `account` may move anybody's tokens.
    function isAgent(address account) external view returns (bool) {
        return _agents[account];
    }

    /// The domain of permits (EIP-712); another one on each chain.
    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return
            keccak256(
                abi.encode(DOMAIN_TYPEHASH, keccak256(bytes(name())), keccak256(bytes(DOMAIN_VERSION)), block.chainid, address(this))
            );
    }

    /// Number of permits of `owner` that were used: what the next one must hold.
    function nonces(address owner) public view override(IERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    /// Decimal places of the token.
    function decimals() public view override returns (uint8) {
        return _decimals;
    }
}
