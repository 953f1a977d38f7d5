"""A headless Chromium for tests and benchmarks, driven through its DevTools protocol over a pipe.

    Browser (one process) ─► Page (one tab): go, wait, click, type, look, what it asked for

The pipe is the browser's descriptors 3 and 4, so there is no port, and the browser ends with the
process that started it. Nothing is downloaded: `find_chromium` is None where none is installed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_S = 60.0
LOOK_S = 0.03
Json = dict[str, Any]  # the protocol's documents


def find_chromium() -> str | None:
    """The installed browser, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class ScriptFailed(AssertionError):
    """What was run in the page raised."""


class Browser:
    """One Chromium with a profile of its own; `with Browser() as browser`."""

    def __init__(self) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError("no Chromium is installed")
        self._profile = tempfile.mkdtemp(prefix="aifap-browser-")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._profile}",
            *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-extensions", "--mute-audio", "--hide-scrollbars", "--no-proxy-server"),
            *("--disable-features=Translate,OptimizationHints,MediaRouter", "about:blank"),
        ]
        # The ends that the browser gets are moved out of the way of its 3 and 4 first.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_browser, from_browser)]
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - a descriptor is needed
            actions = [
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 2),
                (os.POSIX_SPAWN_DUP2, high[0], 3),
                (os.POSIX_SPAWN_DUP2, high[1], 4),
            ]
            self.pid = os.posix_spawn(program, arguments, os.environ, file_actions=actions,
                                      setpgroup=0)  # fmt: skip
        for descriptor in (to_browser, from_browser, *high):
            os.close(descriptor)
        self._rest = b""
        self._number = 0
        self._answers: dict[int, Json] = {}
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and what it kept."""
        with contextlib.suppress(OSError):
            self._send("Browser.close", {}, None)
        for descriptor in (self._out, self._in):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if not self._ended(5.0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _ended(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
            time.sleep(LOOK_S)
        return False

    def page(self, width: int = 1440, height: int = 900, *, phone: bool = False) -> Page:
        """A new tab of that size, with storage of its own."""
        context = self.call("Target.createBrowserContext", {})["browserContextId"]
        target = self.call(
            "Target.createTarget", {"url": "about:blank", "browserContextId": context}
        )["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        made = Page(self, session["sessionId"], context)
        self._pages[made.session] = made
        for domain in ("Page", "Runtime", "Network", "Log"):
            made.call(f"{domain}.enable")
        made.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        # A pulsing dot is drawn sixty times a second: for nobody here, and it costs a core.
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        made.call("Emulation.setEmulatedMedia", features=[still])
        return made

    def call(self, method: str, parameters: Json, session: str | None = None) -> Json:
        """One command and its answer; what happens meanwhile is kept by its page."""
        number = self._send(method, parameters, session)
        until = time.monotonic() + WAIT_S
        while number not in self._answers:
            self.listen(until - time.monotonic())
            if time.monotonic() > until:
                raise TimeoutError(f"{method}: the browser said nothing within {WAIT_S:.0f} s")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise ScriptFailed(f"{method}: {answer['error']}")
        result: Json = answer["result"]
        return result

    def _send(self, method: str, parameters: Json, session: str | None) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        raw = json.dumps(message).encode() + b"\0"
        while raw:
            raw = raw[os.write(self._out, raw) :]
        return self._number

    def listen(self, seconds: float) -> None:
        """Take in what the browser says within so long."""
        if not select.select([self._in], [], [], max(0.0, seconds))[0]:
            return
        part = os.read(self._in, 1 << 20)
        if not part:
            raise ConnectionError("the browser has ended")
        *whole, self._rest = (self._rest + part).split(b"\0")
        for raw in whole:
            message: Json = json.loads(raw)
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].note(message["method"], message["params"])


@dataclass(slots=True)
class Page:
    """One tab, what it asked for, and what it complained about."""

    browser: Browser
    session: str
    context: str
    asked: list[str] = field(default_factory=list)
    """Addresses of all requests."""
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings in the console, exceptions, refusals of the content policy."""

    def call(self, method: str, **parameters: object) -> Json:
        """One DevTools command of this tab."""
        return self.browser.call(method, parameters, self.session)

    def note(self, method: str, event: Json) -> None:
        """Keep what matters of an event."""
        if method == "Network.requestWillBeSent":
            self.asked.append(str(event["request"]["url"]))
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.complaints.append(f"exception: {text}")
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning"):
            self.complaints.append(f"console: {event['args']}")
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            entry = event["entry"]
            self.complaints.append(f"log: {entry['text']} {entry.get('url', '')}")

    @property
    def origins(self) -> set[str]:
        """Where its requests went."""
        parts = [urlsplit(url) for url in self.asked if not url.startswith(("data:", "about:"))]
        return {f"{one.scheme}://{one.netloc}" for one in parts}

    def go(self, url: str) -> None:
        """Open an address; returns when its document and scripts are there."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:  # whatever the expression is
        """The value of an expression in the page; a promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise ScriptFailed(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = WAIT_S) -> None:
        """Until the expression is true in the page."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > until:
                seen = self.run("document.body ? document.body.innerText.slice(0, 1500) : ''")
                raise AssertionError(
                    f"waited {seconds:.0f} s for {condition}; complaints: {self.complaints}; "
                    f"the page says: {seen}"
                )
            self.browser.listen(LOOK_S)

    def text(self, selector: str) -> str:
        """What a person reads there."""
        found = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return str(found)

    def wait_text(self, selector: str, words: str) -> None:
        """Until these words are read there."""
        name = json.dumps(selector)
        self.wait(
            f"(document.querySelector({name})?.innerText ?? '').includes({json.dumps(words)})"
        )

    def click(self, selector: str) -> None:
        """A click in the middle of what is there; it must be seen and on top."""
        name = json.dumps(selector)
        self.wait(f"document.querySelector({name})?.checkVisibility()")
        place = self._still_place(name)
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def _still_place(self, name: str) -> list[float]:
        """Where a click would hit it, once that is the same at two looks."""
        script = (
            f"(() => {{ const node = document.querySelector({name}); if (!node) return null; "
            "node.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const box = node.getBoundingClientRect(); "
            "const [x, y] = [box.x + box.width / 2, box.y + box.height / 2]; "
            "return node.contains(document.elementFromPoint(x, y)) ? [x, y] : null; })()"
        )
        until, last = time.monotonic() + WAIT_S, None
        while time.monotonic() < until:
            place: list[float] | None = self.run(script)
            if place is not None and place == last:
                return place
            last = place
            self.browser.listen(LOOK_S)
        raise AssertionError(f"{name} cannot be hit: something is above it, or it keeps moving")

    def type(self, selector: str, text: str) -> None:
        """Write into a field, instead of what is there."""
        name = json.dumps(selector)
        self.wait(f"document.querySelector({name})?.checkVisibility()")
        self.run(
            f"(() => {{ const n = document.querySelector({name}); n.focus(); n.select?.(); }})()"
        )
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option by its value."""
        self.run(
            f"(() => {{ const n = document.querySelector({json.dumps(selector)}); "
            f"n.value = {json.dumps(value)}; "
            "n.dispatchEvent(new Event('input', {bubbles: true})); "
            "n.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def press(self, key: str) -> None:
        """One key of the keyboard, by its name (`Tab`, `ArrowLeft`, `Enter`)."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **(text if kind == "keyDown" else {}),
            )

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        parameters: Json = {"format": "png"}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            parameters |= {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"],
                         "scale": 1},
            }  # fmt: skip
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", **parameters)["data"])
        )

    def close(self) -> None:
        """End the tab and forget its storage."""
        self.browser.call("Target.disposeBrowserContext", {"browserContextId": self.context})


@contextlib.contextmanager
def opened(browser: Browser, width: int = 1440, height: int = 900, *,
           phone: bool = False) -> Iterator[Page]:  # fmt: skip
    """A tab for the length of a block."""
    page = browser.page(width, height, phone=phone)
    try:
        yield page
    finally:
        page.close()
