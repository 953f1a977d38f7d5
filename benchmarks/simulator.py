"""The paper exchange over HTTP: signed market orders per second, and how long each takes.

Beside it, in the same run, the same exchange behind a FastAPI route on stock uvicorn (what one
would write first), and an empty ASGI application on stock uvicorn (the floor: no exchange at all).
Request limits are lifted (`--unlimited`). Server and load share the machine's cores. Prints ratios;
absolute numbers drift with the machine.

    python -m benchmarks simulator [--orders 4000]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.http_load import Keys, Load, market_orders, run_load, signed
from module.launch.stack import free_port

KEYS = Keys("bench-key", "bench-secret", "bench-passphrase")
CONNECTIONS = (1, 4, 16)
WARM_UP = 300
READS_PATH = "/api/v2/mix/position/all-position"
READS_QUERY = "productType=USDT-FUTURES&marginCoin=USDT"

FASTAPI_SERVER = """
import asyncio, sys
import uvicorn
from fastapi import FastAPI, Request, Response
from module.clock import SystemClock
from module.simulator.wire.bitget_app import BitgetApp, NoLimits, WireRequest
from module.simulator.wire.bitget_auth import SignedRequest
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.control import parse_new_account
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings
from module.simulator.prices.synthetic import SyntheticMarket
from module.simulator.venue import Venue

port, key, secret, passphrase = int(sys.argv[1]), *sys.argv[2:5]
clock = SystemClock()
now_ms = lambda: int(clock.now().timestamp() * 1000)
venue = Venue(Engine(SyntheticMarket(7), EngineSettings(), now_ms()), ENDPOINTS, None)
venue.open_account(parse_new_account({"api_key": key, "api_secret": secret,
    "passphrase": passphrase, "futures_usdt": "100000000", "position_mode": "one_way"}))

class Present:
    def sync(self):
        venue.advance_to(max(venue.now_ms, now_ms()))
        return venue.now_ms

def fail(error):
    raise error

exchange = BitgetApp(venue, Present(), clock.wall, failed=fail, limits=NoLimits())
app = FastAPI()

@app.api_route("/{path:path}", methods=["GET", "POST"])
async def serve(request: Request, path: str) -> Response:
    said = SignedRequest(request.method, "/" + path, request.url.query, await request.body(),
        dict(request.headers))
    answer = exchange.serve(WireRequest(said, "127.0.0.1", None)).answer
    return Response(answer.body, answer.status, dict(answer.headers), "application/json")

uvicorn.run(app, port=port, log_level="warning")
"""

EMPTY_SERVER = """
import sys
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", b"16")]})
    await send({"type": "http.response.body", "body": b'{"code":"00000"}'})

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", lifespan="off")
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks simulator")
    parser.add_argument("--orders", type=int, default=4000, help="of each run")
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{options.orders} signed market orders, keep-alive; orders per second, p50, p99")
    found: dict[str, list[Load]] = {}
    for name, server in (
        ("ours", ours()),
        ("FastAPI", python_server(FASTAPI_SERVER)),
        ("empty", python_server(EMPTY_SERVER)),
    ):
        with server as port:
            found[name] = measure(port, options.orders)
        for load in found[name]:
            print(f"{name:8} {load.connections:3} connections {load.line()}")
    with ours() as port:
        reads = [signed(KEYS, "GET", READS_PATH, None, READS_QUERY)] * options.orders
        run_load(port, reads[:WARM_UP], 1)
        load = run_load(port, reads, 4)
        print(f"ours       4 connections {load.line()}   (reads of positions)")
    for mine, fastapi, empty in zip(found["ours"], found["FastAPI"], found["empty"], strict=True):
        more = mine.per_second / fastapi.per_second
        shorter = fastapi.percentile_ms(99) / mine.percentile_ms(99)
        of_floor = mine.per_second / empty.per_second
        print(
            f"ratio  {mine.connections:2} connections: ours / FastAPI {more:.2f} x orders, p99 "
            f"{shorter:.2f} x shorter; ours / empty {of_floor:.2f} x"
        )
    return 0


def measure(port: int, orders: int) -> list[Load]:
    """One load for each number of connections, after a warm-up."""
    run_load(port, market_orders(KEYS, WARM_UP), 4)
    return [run_load(port, market_orders(KEYS, orders), number) for number in CONNECTIONS]


@contextmanager
def ours(*more: str) -> Iterator[int]:
    """The simulator's process without request limits; its port."""
    secrets = {
        "api_key": KEYS.api_key,
        "api_secret": KEYS.api_secret,
        "passphrase": KEYS.passphrase,
    }
    command = [sys.executable, "-m", "module.simulator.server", "--secrets-file", "-"]
    command += ["--port", "0", "--balance", "100000000", "--unlimited", *more]
    with _running(command, json.dumps(secrets)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "ready" not in line:
            raise RuntimeError(f"the simulator did not start: {line!r}")
        yield int(line.split()[2].rsplit(":", 1)[1])


@contextmanager
def python_server(code: str) -> Iterator[int]:
    """A server of a few lines on a port of its own."""
    port = free_port()
    words = [str(port), KEYS.api_key, KEYS.api_secret, KEYS.passphrase]
    with _running([sys.executable, "-c", code, *words], "") as process:
        wait_until_open(port, process)
        yield port


def wait_until_open(port: int, process: subprocess.Popen[str]) -> None:
    """Return when something listens."""
    import socket
    import time

    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        time.sleep(0.05)
    raise RuntimeError("the server did not open its port")


@contextmanager
def _running(command: list[str], said: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        process.stdin.write(said)
        process.stdin.close()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
