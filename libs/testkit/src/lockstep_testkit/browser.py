"""A headless Chromium for tests, driven by its own protocol (Chrome DevTools) over loopback. Nothing of it leaves this machine.

`make setup` unpacks it into `.chromium`; where it cannot be had, `.chromium/absent` says why. Everything that a page asks for and everything that it complains
of is kept, so that a test can look at both.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

SECONDS_MAX: Final = 120.0
LOOK_SECONDS: Final = 0.05
_FOLDER: Final = ".chromium"
_ARGUMENTS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-features=Translate,OptimizationHints",
    "--remote-debugging-port=0",
)  # fmt: skip


class NoBrowser(Exception):
    """There is no browser here; the message says why."""


def folder() -> Path:
    """Where set-up has unpacked the browser.

    Raises:
        NoBrowser: it could not be had, or set-up was not run.
    """
    for parent in Path(__file__).parents:
        found = parent / _FOLDER
        if (found / "absent").is_file():
            raise NoBrowser((found / "absent").read_text().strip())
        if (found / "chromium").is_file():
            return found
    raise NoBrowser("no Chromium was unpacked: run `make setup`")


@dataclass
class Page:
    """A tab. What it loads and what it complains of is in `requests` and `complaints`."""

    _socket: aiohttp.ClientWebSocketResponse
    _session: str = ""
    #: URLs of all that was asked for.
    requests: list[str] = field(default_factory=list)
    #: Errors and warnings of scripts, of the policy of content, and of the network.
    complaints: list[str] = field(default_factory=list)
    _asked: int = 0
    _waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command.

        Raises:
            AssertionError: it refuses the command.
        """
        self._asked += 1
        number = self._asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **session})
        async with asyncio.timeout(SECONDS_MAX):
            told = await answer
        if "error" in told:
            raise AssertionError(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result

    async def listen(self) -> None:
        """Take what the browser says until it goes."""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
            else:
                self._note(told["method"], told["params"])
        for waiting in self._waiting.values():
            waiting.cancel()

    def _note(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(told["exceptionDetails"].get("exception", {}).get("description") or str(told))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(told["args"]))
            case _:
                pass

    async def begin(self) -> None:
        """Attach to a fresh tab."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def size(self, width: int, height: int) -> None:
        """Show so much of the page, in CSS pixels."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    async def dark(self, wanted: bool) -> None:
        """Prefer dark colours, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def goto(self, url: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """What an expression is in the page.

        Raises:
            AssertionError: it throws.
        """
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"])
        return told["result"].get("value")

    async def until(self, expression: str, seconds_max: float = SECONDS_MAX) -> Any:
        """The value of an expression, once it is true.

        Raises:
            AssertionError: it does not become true; the message holds the page's text.
        """
        give_up = time.monotonic() + seconds_max
        while True:
            # A page that is being left has no document for a moment.
            with contextlib.suppress(AssertionError):
                found = await self.value(expression)
                if found:
                    return found
            if time.monotonic() > give_up:
                text = await self.value("document.body?.innerText")
                raise AssertionError(f"not within {seconds_max} s: {expression}; the page: {text}; it complains: {self.complaints}")
            await asyncio.sleep(LOOK_SECONDS)

    async def text(self, selector: str) -> str:
        """The text of an element, once it is there."""
        quoted = json.dumps(selector)
        await self.until(f"document.querySelector({quoted}) !== null")
        return str(await self.value(f"document.querySelector({quoted}).textContent"))

    async def click(self, selector: str) -> None:
        """Click on an element, once it is there."""
        quoted = json.dumps(selector)
        await self.until(f"document.querySelector({quoted}) !== null")
        await self.value(f"document.querySelector({quoted}).click()")

    async def write(self, selector: str, text: str) -> None:
        """Put a text into a field, as if it were typed."""
        quoted = json.dumps(selector)
        await self.until(f"document.querySelector({quoted}) !== null")
        event = "new Event('input', {bubbles: true})"
        await self.value(
            f"(() => {{ const it = document.querySelector({quoted}); it.value = {json.dumps(text)}; it.dispatchEvent({event}); }})()"
        )

    async def key(self, key: str) -> None:
        """Press a key: Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def picture(self, *, whole: bool = False) -> bytes:
        """The page as PNG; on request all of it, and not only what is in view."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(told["data"])


@asynccontextmanager
async def opened_page() -> AsyncIterator[Page]:
    """A tab of a browser of its own, which ends with it.

    Raises:
        NoBrowser: there is none here.
    """
    found = folder()
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    # Nothing of the caller's environment but where to find programs: proxies and homes are not the page's business.
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(profile),
        "LD_LIBRARY_PATH": str(found / "lib"),
        "FONTCONFIG_FILE": str(found / "fonts.conf"),
    }
    command = [str(found / "chromium"), *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
        )
    try:
        port, path = (await _told_where(process, profile)).split()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            try:
                await page.begin()
                yield page
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _told_where(process: asyncio.subprocess.Process, profile: Path) -> str:
    """Where the browser listens, once it does."""
    place = profile / "DevToolsActivePort"
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        if place.is_file() and len(told := place.read_text().split()) == 2:
            return " ".join(told)
        if process.returncode is not None or time.monotonic() > give_up:
            last = (profile / "log").read_text(errors="replace")[-1000:]
            raise NoBrowser(f"Chromium does not start (exit {process.returncode}): {last}")
        await asyncio.sleep(LOOK_SECONDS)
