"""The methods that a server has, each with everything that stands before it put around it once, when it is added.

What came as interceptors was asked again at every call, and a call that is refused, or taken back at once, cost most of what one costs that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc


class Methods(grpc.GenericRpcHandler):
    """Methods by full name (`/service/method`); a generated `add_…_to_server` takes it for a server."""

    def __init__(self, around: Callable[[str, Any], Any], unknown: Any) -> None:
        """`around` gives what is served in place of a method's handler; `unknown` handles what is not there."""
        self._around = around
        self._unknown: Final = unknown
        self._served: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take the methods of a servicer."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._served[method] = self._around(method, handler)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Needed by generated code; says again what the other says."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call."""
        return self._served.get(handler_call_details.method, self._unknown)
