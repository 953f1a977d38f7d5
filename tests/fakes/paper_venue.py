"""A paper exchange in this process: no socket, no clock but the test's hand, the whole wire.

`PaperVenue.call` is a client's view of one request: the Reply says how it ended. The world moves
only when the test says `advance`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings
from module.simulator.faults.fault_catalogue import words_of
from module.simulator.faults.faults import FaultRule
from module.simulator.journal import WorldFolder
from module.simulator.prices.synthetic import SyntheticMarket
from module.simulator.venue import NewAccount, Venue
from module.simulator.wire.bitget_app import BitgetApp, WireRequest
from module.simulator.wire.bitget_auth import SignedRequest
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.wire.wire_answer import Ending, Reply
from tests.fakes.paper_exchange import START_MS


class PaperVenue:
    """One exchange with account `key-1` of 100,000 USDT; with `data` it remembers."""

    def __init__(self, data: Path | None = None, *, seed: int = 7) -> None:
        self.folder = None if data is None else WorldFolder(data)
        engine = Engine(SyntheticMarket(seed), EngineSettings(), START_MS)
        self.venue = Venue(engine, ENDPOINTS, self.folder)
        self.broken: list[BaseException] = []
        self.app = BitgetApp(self.venue, self, self._wall, failed=self.broken.append)
        self.wall_ms = START_MS
        returning = self.folder is not None and self.folder.holds_world
        if self.folder is not None and returning:
            self.folder.read_header()
            for entry in self.folder.entries():
                self.venue.replay(entry)
        elif self.folder is not None:
            self.folder.start_world({"market_id": engine.market.market_id})
        self.account_id = self.open_account(1)

    def open_account(self, number: int, **more: Any) -> str:
        """Open the account of `key-<number>`."""
        words: dict[str, Any] = {
            "futures_usdt": Decimal(100_000),
            "spot": {"USDT": Decimal(50_000), "BTC": Decimal(1)},
        }
        return self.venue.open_account(
            NewAccount(f"key-{number}", f"secret-{number}", f"pass-{number}", **{**words, **more})
        )

    @property
    def engine(self) -> Engine:
        """What really happened."""
        return self.venue.engine

    def sync(self) -> int:
        """World time, as the application asks for it."""
        return self.venue.now_ms

    def advance(self, seconds: float) -> None:
        """Let world time (and real time) pass."""
        self.wall_ms += int(seconds * 1000)
        self.venue.advance_to(self.venue.now_ms + int(seconds * 1000))

    def fault(self, **words: object) -> list[FaultRule]:
        """Script a fault as the control door does; the new rules."""
        return [self.venue.faults.add(rule) for rule in words_of(words, self.venue.now_ms)]

    def call(
        self, method: str, path: str, params: Mapping[str, object], stamp_ms: int | None = None
    ) -> Reply:
        """Sign and send; how it ended."""
        query = urlencode(params) if method == "GET" else ""
        body = json.dumps(params).encode() if method == "POST" else b""
        stamp = str(self.venue.now_ms if stamp_ms is None else stamp_ms)
        text = f"{stamp}{method}{path}{'?' + query if query else ''}".encode() + body
        digest = hmac.new(b"secret-1", text, hashlib.sha256).digest()
        headers = {
            "access-key": "key-1",
            "access-sign": base64.b64encode(digest).decode(),
            "access-timestamp": stamp,
            "access-passphrase": "pass-1",
        }
        signed = SignedRequest(method, path, query, body, headers)
        reply = self.app.serve(WireRequest(signed, "127.0.0.1", None))
        assert not self.broken, self.broken
        return reply

    def answer(self, method: str, path: str, **params: object) -> Any:
        """The envelope of an answer that arrived whole."""
        reply = self.call(method, path, params)
        assert reply.ending is Ending.ANSWERED, reply
        return json.loads(reply.answer.body)

    def get(self, path: str, **params: object) -> Any:
        """The data of a successful GET."""
        return self._data(self.answer("GET", path, **params))

    def post(self, path: str, **params: object) -> Any:
        """The data of a successful POST."""
        return self._data(self.answer("POST", path, **params))

    def _data(self, envelope: Any) -> Any:
        assert envelope["code"] == "00000", envelope
        return envelope["data"]

    def close(self) -> None:
        """As a kill: nothing is written any more."""
        if self.folder is not None:
            self.folder.close()

    def _wall(self) -> datetime:
        return datetime.fromtimestamp(self.wall_ms / 1000, UTC)
