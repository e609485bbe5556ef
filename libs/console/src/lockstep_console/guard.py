"""Who is answered at all, and what stands in the head of every answer.

A page of another origin gets nothing: the name in `Host` must be the console's own (so that a name which somebody else lets point here is refused), what a
browser calls cross-site is refused, and no answer allows another origin to read it. Only GET is served. The token, where there is one, is asked for every
answer that says something of a plan; it is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lockstep_console.answers import Unanswered
from lockstep_kit.fields import FieldInvalid, require

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "lockstep-console",
}
#: What says something of a plan stays in no cache.
NO_STORE: Final = "no-store"
TOKEN_CHARACTERS_MIN: Final = 32
_SAME: Final = frozenset({"", "same-origin", "none"})


class Guard:
    """Judges requests by their head alone. Pure once made."""

    def __init__(self, names: Iterable[str], token: str | None) -> None:
        self._names = frozenset(names)
        self._token = None if token is None else hashlib.sha256(token.encode()).digest()

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Refuse what is not to be answered.

        Raises:
            Unanswered: HOST_UNKNOWN, METHOD_NOT_ALLOWED, CROSS_SITE, TOKEN_REQUIRED.
        """
        if headers.get("Host", "").lower() not in self._names:
            raise Unanswered(
                421, "HOST_UNKNOWN", "the console is not reached by that name", "use its address, or add the name to listen.names"
            )
        if method != "GET":
            raise Unanswered(405, "METHOD_NOT_ALLOWED", "the console only reads", "sign and send with the lockstep command")
        if not path.startswith("/api/"):
            return
        if headers.get("Sec-Fetch-Site", "") not in _SAME:
            raise Unanswered(403, "CROSS_SITE", "another site's page asks", "open the console's own page")
        if self._token is not None and not self._shown(headers.get("Authorization", "")):
            raise Unanswered(
                401, "TOKEN_REQUIRED", "the console's token is missing or wrong", "open the page with #token=… of listen.token_file"
            )

    def _shown(self, authorization: str) -> bool:
        """Whether the token is shown. Digests of one length are compared, so that not even its length is told."""
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(given, self._token or b"") and scheme.lower() == "bearer"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_names(host: str, port: int, names: Iterable[str]) -> list[str]:
    """Names in `Host` that are the console's: its address with the port, localhost where that is loopback, and those that are configured."""
    address = f"[{host}]" if ":" in host else host
    loopback = [f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"] if is_loopback(host) else []
    return [f"{address.lower()}:{port}", *loopback, *names]


def read_token(path: Path | None, host: str) -> str | None:
    """The token that browsers must show; None where nobody is asked.

    Raises:
        FieldInvalid: the file cannot be read or holds too little, or there is none for an address that others reach.
    """
    if path is None:
        require(is_loopback(host), "listen.token_file", f"must be given, since others reach {host}")
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FieldInvalid("listen.token_file", "must be a readable file of ASCII text") from error
    long_enough = len(token) >= TOKEN_CHARACTERS_MIN and token.isprintable() and " " not in token
    require(long_enough, "listen.token_file", f"must hold {TOKEN_CHARACTERS_MIN} or more characters without a space")
    return token
