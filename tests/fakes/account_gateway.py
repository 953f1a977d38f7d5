"""The gateway's read routes over a real socket, answering from an `AccountExchange`."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from module.model.canonical import parse_instant
from module.security.tokens import read_grant
from module.wire.model_codec import to_document
from tests.fakes.watched_account import AccountExchange


class AccountGateway:
    """One account at `url`; a request without a grant for it is refused."""

    def __init__(self, exchange: AccountExchange, account_id: str, token_key: str) -> None:
        self.answered = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                token = self.headers["Authorization"].removeprefix("Bearer ")
                read_grant(token, token_key).opens_account(account_id)
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)
                document = outer._answer(exchange, parts.path, query.get("since", [""])[0])
                body = json.dumps(document).encode()
                outer.answered += 1
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, exchange: AccountExchange, path: str, since: str) -> object:
        match path.rsplit("/", 1)[-1]:
            case "snapshot":
                return to_document(exchange.snapshot())
            case "fills":
                return to_document(exchange.fills(parse_instant(since)))
            case "bills":
                return to_document(exchange.bills(parse_instant(since)))
            case "closed-positions":
                return to_document(exchange.closed_positions(parse_instant(since)))
        raise NotImplementedError(path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)
