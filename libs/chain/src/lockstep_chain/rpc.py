"""JSON-RPC 2.0 over HTTP: single calls and batches. Nothing is retried here, since a call that timed out may have been carried out.

web3's provider is not used: it sends eth_sendRawTransaction up to five times by default, and refuses it inside a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import orjson
from opentelemetry.trace import SpanKind

from lockstep_chain.ports import EvmUnavailable
from lockstep_kit.spans import detail

#: Calls in one HTTP request at the most; geth takes 1,000, hosted nodes fewer.
BATCH_MAX: Final = 100
#: An answer is not read further than this.
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024

Call = tuple[str, Sequence[object]]
Request: TypeAlias = dict[str, Any]


class RpcError(Exception):
    """The node answered a call with an error.

    Attributes:
        code: JSON-RPC error code.
        message: the node's words.
        revert_data: what a reverted call returned, where the node says so.
    """

    def __init__(self, code: int, message: str, revert_data: str | None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.revert_data = revert_data


class JsonRpc:
    """A connection pool to one endpoint."""

    def __init__(self, url: str, *, request_seconds_max: float) -> None:
        self._url = url
        # Host and port alone: elsewhere in the URL there may be a key.
        parts = urlsplit(url)
        self._told: dict[str, str | int] = {
            "rpc.system.name": "jsonrpc",
            "jsonrpc.protocol.version": "2.0",
            "http.request.method": "POST",
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }
        self._ids = itertools.count(1)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=request_seconds_max), headers={"content-type": "application/json"}
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(self, method: str, params: Sequence[object] = ()) -> Any:
        """The result of one call.

        Raises:
            RpcError: the node answered with an error.
            EvmUnavailable: there was no answer; the call may have been carried out.
        """
        answer = await self._post({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})
        result = _result(answer)
        if isinstance(result, RpcError):
            raise result
        return result

    async def batch(self, calls: Sequence[Call]) -> list[Any | RpcError]:
        """Results of calls in their order, an error in the place of its result. A node may carry a batch out in any order.

        Raises:
            EvmUnavailable: a batch, or a call of it, was not answered.
        """
        found: list[Any | RpcError] = []
        for start in range(0, len(calls), BATCH_MAX):
            requests = [
                {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
                for method, params in calls[start : start + BATCH_MAX]
            ]
            answers = await self._post(requests)
            if not isinstance(answers, list):
                raise EvmUnavailable("the endpoint does not answer batches")
            by_id = {answer["id"]: answer for answer in answers if isinstance(answer, dict) and isinstance(answer.get("id"), int)}
            found.extend(_result(by_id.get(request["id"])) for request in requests)
        return found

    async def _post(self, body: Request | list[Request]) -> Any:
        methods = sorted({each["method"] for each in body}) if isinstance(body, list) else [body["method"]]
        with detail(",".join(methods), SpanKind.CLIENT, {**self._told, "rpc.method": ",".join(methods)}) as told:
            if told is not None and isinstance(body, list):
                told.set_attribute("jsonrpc.batch_size", len(body))
            return await self._asked(body)

    async def _asked(self, body: Request | list[Request]) -> Any:
        try:
            async with self._session.post(self._url, data=orjson.dumps(body)) as response:
                read = bytearray()
                async for chunk in response.content.iter_chunked(64 * 1024):
                    read += chunk
                    if len(read) > ANSWER_BYTES_MAX:
                        raise EvmUnavailable(f"the endpoint's answer has more than {ANSWER_BYTES_MAX} bytes")
                return orjson.loads(read)
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError, OSError) as error:
            # Only the kind of the error: its text may hold the URL, and the URL a key.
            raise EvmUnavailable(f"the endpoint gave no answer: {type(error).__name__}") from None


def _result(answer: Any) -> Any | RpcError:
    if not isinstance(answer, dict) or ("result" not in answer and "error" not in answer):
        raise EvmUnavailable("the endpoint left a call unanswered")
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        return RpcError(0, str(error), None)
    told, code = error.get("data"), error.get("code")
    return RpcError(code if isinstance(code, int) else 0, str(error.get("message", "")), told if isinstance(told, str) else None)
