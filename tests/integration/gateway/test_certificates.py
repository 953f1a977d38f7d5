"""An exchange whose certificate does not prove who it is (A25): nothing is sent to it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import Venue, VenueAccess
from module.gateway.budget import RequestBudget
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Unavailable
from module.model.market import MarketType
from tests.fakes.gateway_rig import sell
from tests.fakes.hand_clock import HandClock

KEYS = Credentials("key-123456", "secret-123456", "passphrase")


class Listens(BaseHTTPRequestHandler):
    """Writes down what comes through."""

    heard: list[str]

    def do_POST(self) -> None:
        self.heard.append(self.path)
        self.send_error(500)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def impostor(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """An HTTPS server with a certificate that nobody has signed: its address, what it heard."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "impostor.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    heard: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Listens,), {"heard": heard}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


@pytest.fixture
def visited(tmp_path: Path) -> Iterator[tuple[Venue, list[str]]]:
    """A spot account whose exchange is an impostor, and what that has heard."""
    with impostor(tmp_path) as (address, heard):
        clock = HandClock()
        access = VenueAccess("acc", address, MarketType.SPOT, TradeEnv.LIVE, KEYS)
        gate = RequestBudget(clock).for_account(address, "k")
        venue = CcxtVenues(clock).open_venue("bitget", access, gate)
        yield venue, heard
        venue.close()


def test_A25_nothing_is_read_from_an_exchange_that_cannot_prove_who_it_is(
    visited: tuple[Venue, list[str]],
) -> None:
    venue, heard = visited
    with pytest.raises(Unavailable, match="certificate"):
        venue.snapshot()
    assert heard == []


def test_A25_an_order_to_an_exchange_that_cannot_prove_who_it_is_was_certainly_not_sent(
    visited: tuple[Venue, list[str]],
) -> None:
    venue, heard = visited
    venue.admit_orders([sell()])
    with pytest.raises(Unavailable, match=r"certificate.*nothing was sent"):
        venue.submit([sell()])
    assert heard == []
