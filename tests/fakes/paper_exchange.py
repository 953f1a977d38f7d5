"""A simulator as a real process, and a small raw client of its wire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from module.clock import WorldClock

CONTROL_TOKEN = "control-token-of-the-test"
START = "2026-03-02T10:00:00Z"
START_MS = 1_772_445_600_000
ROOT = Path(__file__).parents[2]


class SimulatorProcess:
    """One `python -m module.simulator.server`, with one account (key `key-1`) unless told."""

    def __init__(
        self,
        data: Path | None = None,
        *,
        speed: float = 0,
        seed: int = 7,
        port: int = 0,
        clock_port: int = 0,
        extra: tuple[str, ...] = (),
        account: bool = True,
    ) -> None:
        secrets: dict[str, object] = {"control_token": CONTROL_TOKEN}
        if account:
            secrets |= {"api_key": "key-1", "api_secret": "secret-1", "passphrase": "pass-1"}
        command = [sys.executable, "-m", "module.simulator.server", "--secrets-file", "-"]
        command += ["--port", str(port), "--clock-port", str(clock_port), "--speed", str(speed)]
        command += ["--seed", str(seed), "--start", START, *extra]
        if data is not None:
            command += ["--data", str(data)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(secrets))
        self.process.stdin.close()
        self.ready_line = self.process.stdout.readline()
        if not self.ready_line:
            code = self.process.wait(10)
            raise RuntimeError(f"simulator ended with {code}: {self.errors()}")
        words = self.ready_line.split()
        self.url = words[2]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.clock_port = int(words[4].rsplit(":", 1)[1])

    def errors(self) -> str:
        """What it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def clock(self, participant: str | None) -> WorldClock:
        """A clock in its world."""
        return WorldClock("127.0.0.1", self.clock_port, participant)

    def control(self, method: str, path: str, words: Mapping[str, object] | None = None) -> Any:
        """Call the control door; the answer's JSON."""
        status, answer = self.control_raw(method, path, words)
        assert status == 200, answer
        return answer

    def control_raw(
        self,
        method: str,
        path: str,
        words: Mapping[str, object] | None = None,
        token: str = CONTROL_TOKEN,
    ) -> tuple[int, Any]:
        """Status and JSON of a control call."""
        answer = urllib3.request(
            method,
            f"{self.url}/control/{path}",
            body=None if words is None else json.dumps(words).encode(),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=30,
            retries=False,
        )
        return answer.status, json.loads(answer.data)

    def account(self, number: int = 1) -> dict[str, Any]:
        """What the judge says of the account of `key-<number>`."""
        found = self.control("GET", f"ledger?account_id=key-{number}")["accounts"]
        assert len(found) == 1
        return dict(found[0])

    def kill(self) -> None:
        """SIGKILL, as a power cut for the process."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        code = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class RawBitget:
    """Signs and sends, and hides nothing: status, headers and JSON of every answer."""

    def __init__(
        self,
        url: str,
        key: str = "key-1",
        secret: str = "secret-1",
        passphrase: str = "pass-1",
        *,
        demo: bool = False,
    ) -> None:
        self.url, self.key, self.secret, self.passphrase = url, key, secret, passphrase
        self._demo = demo
        self.pool = urllib3.PoolManager(retries=False, timeout=30)
        self.headers: dict[str, str] = {}
        self.status = 0

    def get(self, path: str, **params: object) -> Any:
        """The data of a successful GET."""
        return self._data("GET", path, params)

    def post(self, path: str, **params: object) -> Any:
        """The data of a successful POST."""
        return self._data("POST", path, params)

    def code(self, method: str, path: str, **params: object) -> str:
        """The code of an answer, whatever it is."""
        return str(self.call(method, path, params)["code"])

    def call(
        self, method: str, path: str, params: dict[str, Any], stamp_ms: int | None = None
    ) -> Any:
        """The whole envelope."""
        query = urlencode(params) if method == "GET" and params else ""
        body = json.dumps(params) if method == "POST" else ""
        stamp = str(stamp_ms if stamp_ms is not None else int(time.time() * 1000))
        text = f"{method}{path}{'?' + query if query else ''}{body}"
        headers = self.signed(text, stamp)
        if self._demo:
            headers["PAPTRADING"] = "1"
        return self.send(method, path, query, body, headers)

    def signed(self, text: str, stamp: str) -> dict[str, str]:
        """The headers for `text` (method, path, query, body) at time `stamp`."""
        digest = hmac.new(self.secret.encode(), (stamp + text).encode(), hashlib.sha256).digest()
        return {
            "ACCESS-KEY": self.key,
            "ACCESS-SIGN": base64.b64encode(digest).decode(),
            "ACCESS-TIMESTAMP": stamp,
            "ACCESS-PASSPHRASE": self.passphrase,
            "Content-Type": "application/json",
        }

    def send(self, method: str, path: str, query: str, body: str, headers: dict[str, str]) -> Any:
        """Send exactly this."""
        answer = self.pool.request(
            method,
            f"{self.url}{path}{'?' + query if query else ''}",
            body=body.encode() or None,
            headers=headers,
        )
        self.headers = {name.lower(): text for name, text in answer.headers.items()}
        self.status = answer.status
        return json.loads(answer.data)

    def _data(self, method: str, path: str, params: dict[str, object]) -> Any:
        answer = self.call(method, path, params)
        assert answer["code"] == "00000", answer
        return answer["data"]


MIX = "/api/v2/mix"
SPOT = "/api/v2/spot"
USDT = {"productType": "USDT-FUTURES"}
BTC = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginCoin": "USDT"}


def market_order(side: str, size: str, **more: object) -> dict[str, object]:
    """The words of a crossed market order in BTCUSDT."""
    words = {**BTC, "marginMode": "crossed", "side": side, "orderType": "market", "size": size}
    return {**words, **more}


def ccxt_client(url: str, key: str = "key-1", number: int = 1) -> Any:
    """An unmodified ccxt bitget pointed at the simulator."""
    import ccxt

    apis = ["spot", "mix", "user", "p2p", "broker", "margin"]
    apis += ["common", "tax", "convert", "copy", "earn", "uta"]
    return ccxt.bitget(
        {
            "apiKey": key,
            "secret": f"secret-{number}",
            "password": f"pass-{number}",
            "enableRateLimit": False,
            "urls": {"api": dict.fromkeys(apis, url)},
            "options": {"defaultType": "swap"},
        }
    )
