// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// An ERC-20 whose owner mints and names its controllers (ERC-3643: agents): money for the sandbox and for tests.
contract SandboxToken is ERC20, Ownable {
    uint8 private immutable _decimals;
    mapping(address account => bool) private _agents;

    /// `agent` may move anybody's tokens from now on.
    event AgentAdded(address indexed agent);
    /// `agent` may not any more.
    event AgentRemoved(address indexed agent);

    error NotAgent(address account);

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

    /// Whether `account` may move anybody's tokens.
    function isAgent(address account) external view returns (bool) {
        return _agents[account];
    }

    /// Decimal places of the token.
    function decimals() public view override returns (uint8) {
        return _decimals;
    }
}
