// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// A token that anybody may mint: the base of those that misbehave.
abstract contract OpenToken is ERC20 {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// Keeps one per cent of every transfer.
contract FeeToken is OpenToken {
    constructor() ERC20("Fee", "FEE") {}

    function _update(address from, address to, uint256 amount) internal override {
        if (from == address(0) || to == address(0)) return super._update(from, to, amount);
        super._update(from, address(0xdead), amount / 100);
        super._update(from, to, amount - amount / 100);
    }
}

/// Refuses transfers to or from whom it is told to, and burns all gas on the way to whom it is told to.
contract BlockingToken is OpenToken {
    mapping(address => bool) public isBlocked;
    mapping(address => bool) public isBomb;

    constructor() ERC20("Blocking", "BLK") {}

    function setBlocked(address account, bool blocked) external {
        isBlocked[account] = blocked;
    }

    function setBomb(address account, bool bomb) external {
        isBomb[account] = bomb;
    }

    /// A controller's function that anybody may call: blocks hold for it too.
    function forcedTransfer(address from, address to, uint256 amount) external returns (bool) {
        _transfer(from, to, amount);
        return true;
    }

    /// A permit that every signature opens whose v is 27.
    function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32, bytes32) external {
        require(block.timestamp <= deadline && v == 27, "permit");
        _approve(owner, spender, value);
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!isBlocked[from] && !isBlocked[to], "blocked");
        if (isBomb[from] || isBomb[to]) {
            assembly {
                invalid()
            }
        }
        super._update(from, to, amount);
    }
}

/// Answers false instead of reverting while it is told to.
contract FalseToken is OpenToken {
    bool public isRefusing;

    constructor() ERC20("False", "FLS") {}

    function setRefusing(bool refusing) external {
        isRefusing = refusing;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return !isRefusing && super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return !isRefusing && super.transferFrom(from, to, amount);
    }
}

/// Answers every refusal with a hundred kilobytes.
contract VerboseToken is OpenToken {
    constructor() ERC20("Verbose", "VRB") {}

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        assembly {
            revert(0, 100000)
        }
    }
}

/// Calls somebody back in the middle of every transfer, and remembers whether that succeeded; refuses while it is told to.
contract ReentrantToken is OpenToken {
    bool public isRefusing;
    address public target;
    bytes public payload;
    bool public hasCalled;
    bool public hasSucceeded;

    constructor() ERC20("Reentrant", "REE") {}

    function setRefusing(bool refusing) external {
        isRefusing = refusing;
    }

    function arm(address target_, bytes calldata payload_) external {
        (target, payload, hasCalled, hasSucceeded) = (target_, payload_, false, false);
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!isRefusing, "refusing");
        super._update(from, to, amount);
        if (target != address(0)) {
            hasCalled = true;
            (hasSucceeded, ) = target.call(payload);
        }
    }
}

/// An ERC-20 of the kind that was common before the standard was final: its transfers answer nothing.
contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// Has a controller function that anybody may call, and that misbehaves as it is told to.
contract ControlledToken is OpenToken {
    enum Manner {
        Honest,
        AnswersFalse,
        AnswersTrueAndMovesNothing,
        MovesLess,
        MovesFromAnother,
        BurnsGas,
        Shouts,
        CallsBack,
        AnswersAByte,
        PaysAnother
    }

    Manner public manner;
    address public target;
    bytes public payload;
    bool public hasCalled;
    bool public hasSucceeded;
    bool public isRefusing;

    constructor() ERC20("Controlled", "CTL") {}

    function setManner(Manner manner_) external {
        manner = manner_;
    }

    function setRefusing(bool refusing) external {
        isRefusing = refusing;
    }

    function arm(address target_, bytes calldata payload_) external {
        (target, payload, hasCalled, hasSucceeded) = (target_, payload_, false, false);
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        require(!isRefusing, "refusing");
        return super.transfer(to, amount);
    }

    function forcedTransfer(address from, address to, uint256 amount) external returns (bool) {
        if (manner == Manner.AnswersFalse) return false;
        if (manner == Manner.AnswersTrueAndMovesNothing) return true;
        if (manner == Manner.BurnsGas) {
            assembly {
                invalid()
            }
        }
        if (manner == Manner.Shouts) {
            assembly {
                revert(0, 100000)
            }
        }
        if (manner == Manner.AnswersAByte) {
            assembly {
                return(0, 1)
            }
        }
        if (manner == Manner.CallsBack) {
            hasCalled = true;
            (hasSucceeded, ) = target.call(payload);
        }
        if (manner == Manner.MovesFromAnother) {
            _mint(to, amount);
            return true;
        }
        if (manner == Manner.PaysAnother) to = address(0xdead);
        _transfer(from, to, manner == Manner.MovesLess ? amount - 1 : amount);
        return true;
    }
}

/// Answers every call that it does not know with success and nothing, and does nothing.
contract AgreeableToken is OpenToken {
    constructor() ERC20("Agreeable", "AGR") {}

    fallback() external {}
}

/// Burns all gas on every permit.
contract BombPermitToken is OpenToken {
    constructor() ERC20("Bomb permit", "BPT") {}

    function permit(address, address, uint256, uint256, uint8, bytes32, bytes32) external pure {
        assembly {
            invalid()
        }
    }
}
