"""gRPC as the services speak it: mutual TLS, default deny, deadlines that only shrink, errors that keep their reason, health and drain."""

from lockstep_kit.rpc.access import Access
from lockstep_kit.rpc.arrows import access_of
from lockstep_kit.rpc.certificates import peer_id
from lockstep_kit.rpc.client import channel
from lockstep_kit.rpc.deadlines import call_seconds, remaining_seconds
from lockstep_kit.rpc.server import ListenSettings, Server
from lockstep_kit.rpc.streams import answers
from lockstep_kit.rpc.tls import TlsSettings

__all__ = [
    "Access",
    "ListenSettings",
    "Server",
    "TlsSettings",
    "access_of",
    "answers",
    "call_seconds",
    "channel",
    "peer_id",
    "remaining_seconds",
]
