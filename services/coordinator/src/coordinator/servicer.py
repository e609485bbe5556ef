"""SettlementService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import asyncpg
import grpc
from google.protobuf.message import Message

from coordinator import gates
from coordinator.accepting import Acceptance
from coordinator.certificates import check_release
from coordinator.convert import settlement
from coordinator.dossier import Dossier
from coordinator.engine import Engine, Work
from coordinator.model import ChecksBegun, ExecuteAsked, GateSigned, State
from coordinator.store import plans, reading, requests
from coordinator.waiting import waiting
from coordinator.watching import Seen, Watchers
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2_grpc
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit import ids
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.convert import time_to_pb
from lockstep_kit.errors import LockstepError, aborted, not_found, permission_denied, precondition, unavailable
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.plan import LegKind
from lockstep_kit.settings import ServiceSettings
from lockstep_kit.statements import Gate, GateSignature, Verdict

Context = grpc.aio.ServicerContext[Any, Any]
_R = TypeVar("_R", messages.CreatePlanResponse, messages.ExecutePlanResponse, messages.CancelPlanResponse, messages.SignGateResponse)

PLANS_PAGE_MAX: Final = 200
PLANS_PAGE_DEFAULT: Final = 50
TRANSITIONS_PAGE_MAX: Final = 500
TRANSITIONS_PAGE_DEFAULT: Final = 100
