"""`python -m tests.simulation.processes --faults all`: sessions while the exchange misbehaves.

    case ─► fresh account and session ─► fault armed ─► cycles under it ─► faults off
         ─► the world is held in the middle of a cycle: stops, targets ─► ended flat
         ─► every order of the exchange's ledger against the letters

A case is one variant of the catalogue (`fault_cases.py`) or a seeded plan. A session converges, or
it has stopped or stands with a reason that was told; nothing else is right. What a fault has never
changed is a violation too: then nothing was tested.
"""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from api.standalone import Standalone, StandaloneOptions
from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.launch.stack import free_port
from module.model.errors import AifapError
from module.model.sessions import boundary_at_or_after
from tests.e2e.installation import Installation, pid_listening_at
from tests.fakes.webhook_server import WebhookServer
from tests.simulation.processes.fault_cases import ADDRESS_WIDE, MAY_END, Arm, Case, chosen
from tests.simulation.processes.ledger_judge import (
    judge_orders,
    judge_reductions,
    judge_stops,
    judge_targets,
)
from trading.bootstrap import build_clock

SPEED = 480.0
INTERVAL = timedelta(minutes=1)
CASE_MAX_S = 150
LOOK_AT_S = 50
LOOKS_MAX = 5
LOG_LINES_MAX = 1500
ALERTS_MAX = 15
CASES_PER_INSTALLATION = 25
STAYS = ("halted", "paused", "unprotected", "not_tradable", "no_price", "40309")
"""Residual codes that a fault may leave behind after it is over."""
SEED_IDS = (
    *("A1", "A2", "A3", "A4", "A5", "A6", "A8", "A9", "A10", "A11", "A12", "A13", "A14", "A15"),
    *("A18", "A21", "A23", "A28", "A29", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9"),
    *("B10", "B11", "B12", "B13", "B15", "B16", "B17"),
)
SEED_HORIZON_S = 900

STRATEGY = """
LONGS, SHORTS = ("BTCUSDT", "ETHUSDT", "SOLUSDT"), ("XRPUSDT", "DOGEUSDT", "BNBUSDT")
BOOKS = [
    (.13, .12, .1, -.13, -.12, -.1),
    (-.1, .16, .06, -.08, .1, -.14),    # two turn round, two grow, two shrink
]

def strategy(context, config_dict):
    cycle = (int(context.current_dt.timestamp()) - config_dict["first_s"]) // 60
    if config_dict.get("flat") and cycle % 3 == 2:
        return {}
    weights = dict(zip(LONGS + SHORTS, BOOKS[cycle % 2]))
    prices = context.get_history(list(weights), window=3, frequency="1m", fields="close").iloc[-1]
    return {
        symbol: {
            "weight": weight,
            "presetStopLossPrice": prices[symbol] * (1 - .2 * (1 if weight > 0 else -1)),
            "presetStopSurplusPrice": prices[symbol] * (1 + .25 * (1 if weight > 0 else -1)),
        }
        for symbol, weight in weights.items()
    }
"""
FLAT_STRATEGY = """
def strategy(context, config_dict):
    return {}
"""


@dataclass(slots=True)
class Outcome:
    """What became of a case."""

    name: str
    fired: int = 0
    how: str = ""
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        wrong = "; ".join(self.violations) or "-"
        return f"{self.name:18} {self.fired:5}  {self.how:70.70}  {self.seconds:5.1f} s  {wrong}"


class CaseHangsError(Exception):
    """A case has not ended in its real time."""


class Laboratory:
    """One installation in which faults are tried, one after the other."""

    def __init__(self, installation: Installation, webhooks: WebhookServer) -> None:
        self.installation = installation
        self._webhooks = webhooks
        settings = installation.stack.settings
        self._control = f"{settings.simulator_url}/control"
        self._headers = {"Authorization": f"Bearer {settings.secret('control_token')}"}
        for name, source in (
            ("misled", STRATEGY),
            ("all_flat", FLAT_STRATEGY),
        ):
            installation.upload(name, source)

    # --- the control door ------------------------------------------------------------------------

    def control(self, method: str, path: str, body: object = None) -> Any:
        """One call of the simulator's own door."""
        answer = urllib3.request(
            method,
            f"{self._control}{path}",
            headers=self._headers,
            body=None if body is None else json.dumps(body).encode(),
            timeout=30.0,
            retries=urllib3.Retry(connect=20, backoff_factor=0.2),
        )
        assert answer.status == 200, answer.data[:300]
        return answer.json()

    def fired(self) -> list[int]:
        return [int(rule["fired"]) for rule in self.control("GET", "/faults")["rules"]]

    def exchange_id(self, account_id: str) -> str:
        """The exchange's own name of an account."""
        database = Database(self.installation.stack.settings, "finplatform", 1)
        try:
            hint = AccountRepository(database).get(account_id).key_hint
        finally:
            database.close()
        rows = self.control("GET", "/ledger")["accounts"]
        (found,) = [row["account_id"] for row in rows if row["api_key"].endswith(hint[-4:])]
        return str(found)

    def ledger(self, exchange_id: str) -> Mapping[str, Any]:
        answer = self.control("GET", f"/ledger?account_id={exchange_id}")
        assert answer["balanced"], "the exchange's books do not balance"
        return dict(answer["accounts"][0])

    # --- a case ----------------------------------------------------------------------------------

    def run(self, case: Case) -> Outcome:
        """See the module's docstring."""
        with hangs_after(CASE_MAX_S):
            return _Trial(self, case.name, case).run()

    def run_seed(self, seed: int, density: int) -> Outcome:
        """A seeded plan on one session, until all of it has come and gone."""
        plan: dict[str, object] = {
            "seed": seed,
            "density": density,
            "horizon_s": SEED_HORIZON_S,
            "ids": list(SEED_IDS),
        }
        case = Case("seed", str(seed), (plan,), cycles=SEED_HORIZON_S // 60)
        with hangs_after(CASE_MAX_S * 2):
            return _Trial(self, case.name, case).run()

    def letters(self, session_id: str) -> list[Mapping[str, Any]]:
        """Every letter of a session, newest first; the one under way too."""
        with self.installation.sessions() as sessions:
            kept = [c.order_info for c in sessions.cycles(session_id, 10_000) if c.order_info]
        folder = self.installation.stack.settings.data_dir / "sessions" / session_id
        with contextlib.suppress(OSError, ValueError):
            wrapped = json.loads((folder / "order_info.txt").read_text())
            current = wrapped["document"]
            kept = [letter for letter in kept if letter["cycle"] != current["cycle"]]
            kept.insert(0, current)
        return sorted(kept, key=lambda letter: str(letter["cycle"]), reverse=True)

    def log_lines(self) -> int:
        folder = self.installation.stack.settings.data_dir
        return sum(
            path.read_bytes().count(b"\n")
            for pattern in ("logs/**/*", "sessions/**/*.log")
            for path in folder.glob(pattern)
            if path.is_file()
        )

    def alerts(self) -> int:
        return len(self._webhooks.received)

    def alert_text(self, since: int, *names: str) -> str:
        """Titles of what was told of a session or an account since."""
        bodies = [
            json.dumps(body, ensure_ascii=False).replace("\\", "")
            for body in self._webhooks.received[since:]
        ]
        return "\n".join(body for body in bodies if any(name in body for name in names))

    def services(self) -> dict[str, int]:
        settings = self.installation.stack.settings
        return {
            name: pid_listening_at(url)
            for name, url in (
                ("gateway", settings.gateway_url),
                ("market", settings.market_url),
                ("simulator", settings.simulator_url),
                ("router", self.installation.stack.api_url),
            )
        }


class _Trial:
    """One case under way."""

    def __init__(self, lab: Laboratory, name: str, case: Case) -> None:
        self._lab = lab
        self._it = lab.installation
        self._case = case
        self._outcome = Outcome(name)
        self._started = time.monotonic()
        self._label = f"{name}-{time.monotonic_ns()}".replace("/", "-").lower()

    def run(self) -> Outcome:
        lab, case = self._lab, self._case
        lines, told, services = lab.log_lines(), lab.alerts(), lab.services()
        account = self._open_account()
        exchange_id = lab.exchange_id(account)
        session = ""
        try:
            if case.arm is Arm.FIRST:
                self._arm(exchange_id)
            session = self._start(account)
            if case.arm is not Arm.FIRST:
                self._it.wait_cycles(session, 1)
                with self._quiet() if case.arm is Arm.QUIET else contextlib.nullcontext():
                    self._arm(exchange_id)
            self._live_through(session)
        except AssertionError as error:
            self._wrong(f"I17: {error}")
        finally:
            rules = lab.fired() or [0]
            lab.control("DELETE", "/faults")
        seeded = case.fault == "seed"
        self._outcome.fired = sum(1 for fired in rules if fired) if seeded else min(rules)
        if not self._outcome.fired:
            self._wrong("the fault never fired: nothing was tested")
        if session:
            self._judge(session, account, exchange_id, told)
        if lab.services() != services:
            self._wrong(f"I20: a service died: {services} became {lab.services()}")
        if (grown := lab.log_lines() - lines) > LOG_LINES_MAX * max(1, case.cycles // 5):
            self._wrong(f"log flood: {grown} lines")
        if (alerts := lab.alerts() - told) > ALERTS_MAX * max(1, case.cycles // 5):
            self._wrong(f"alert flood: {alerts} messages")
        self._outcome.seconds = time.monotonic() - self._started
        return self._outcome

    def _wrong(self, what: str) -> None:
        self._outcome.violations.append(what)

    def _open_account(self) -> str:
        return self._it.paper_account(self._label)

    def _start(self, account: str) -> str:
        return self._it.start(
            account,
            "misled",
            INTERVAL,
            threshold="0.005",
            config={"flat": self._case.has_flat_cycle},
        )

    def _arm(self, exchange_id: str) -> None:
        for rule in self._case.rules:
            limited = {} if self._case.fault in ADDRESS_WIDE else {"account_id": exchange_id}
            self._lab.control("POST", "/faults", {**({} if "seed" in rule else limited), **rule})

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Hold the world late in a cycle."""
        with contextlib.closing(build_clock(self._it.stack.settings, "test:conductor")) as clock:
            at = boundary_at_or_after(clock.now() + timedelta(milliseconds=1), INTERVAL)
            clock.sleep_until(at + timedelta(seconds=LOOK_AT_S))
            yield

    def _live_through(self, session: str) -> None:
        """`cycles` cycles under the fault, and until it has fired."""
        it, case = self._it, self._case
        begun = int(it.calm_view(session)["cycle"])

        def over() -> bool:
            view = it.calm_view(session)
            if view["state"] in ("ended", "failed"):
                return True
            done = int(view["cycle"]) >= begun + case.cycles
            return done and (case.fault == "seed" or all(self._lab.fired()))

        with contextlib.suppress(AssertionError):  # not fired is told below, by name
            it.wait(over, "the fault", seconds=40.0 + 3.0 * case.cycles)

    # --- judging ---------------------------------------------------------------------------------

    def _judge(self, session: str, account: str, exchange_id: str, told: int) -> None:
        it, lab = self._it, self._lab
        codes = self._look_in_the_middle(session, exchange_id)
        state = it.calm_view(session)["state"]
        if state == "running":
            it.terminate(session, "flat")
        view = it.wait_over(session)
        if view["state"] == "failed":
            self._outcome.how = f"failed: {view['reason'].rpartition('the last: ')[2]}"
            self._require_told(told, session, "Critical Error")
            if not {self._case.fault, self._case.name} & set(MAY_END):
                self._wrong("I16: the session did not survive it")
        elif codes:
            self._outcome.how = f"stands: {', '.join(sorted(codes))}"
            if codes & {"halted", "paused"}:
                self._require_told(told, self._label, "")
        else:
            self._outcome.how = self._outcome.how or "converged"
        if self._case.fault != "A16":  # whose keys are refused cannot read its fills
            self._compare_fills(session, self._lab.ledger(exchange_id))
        sessions = [session]
        if view["state"] == "failed":
            sessions.append(self._flatten(account))
        letters = [letter for each in sessions for letter in lab.letters(each)]
        ledger = self._when_clean(exchange_id)
        resized = self._case.fault in ("A26", "seed")
        for found in (judge_orders(ledger, letters, resized=resized), judge_reductions(ledger)):
            self._outcome.violations += found
        if ledger["positions"] or ledger["plans"]:
            held = [position["symbol"] for position in ledger["positions"]]
            plans = [f"{plan['planType']} of {plan['symbol']}" for plan in ledger["plans"]]
            self._wrong(f"I21: not flat at the end: {held}, left {plans}")
        if left := it.leftovers(session):
            self._wrong(f"I20: processes left: {left}")
        with contextlib.suppress(AifapError):
            it.client.delete(f"/accounts/{account}?force=true")

    def _look_in_the_middle(self, session: str, exchange_id: str) -> set[str]:
        """Hold the world between two cycles and look, at a few cycles until all is well."""
        wrong: list[str] = []
        codes: set[str] = set()
        settings = self._it.stack.settings
        with contextlib.closing(build_clock(settings, "test:conductor")) as clock:
            for _ in range(LOOKS_MAX):
                at = boundary_at_or_after(clock.now() + timedelta(milliseconds=1), INTERVAL)
                clock.sleep_until(at + timedelta(seconds=LOOK_AT_S))
                state = self._it.calm_view(session)["state"]
                over, failed = state in ("ended", "failed"), state == "failed"
                letters = self._lab.letters(session)
                letter = letters[0] if letters else None
                ledger = self._lab.ledger(exchange_id)
                wrong = judge_stops(ledger, letters, failed=failed)
                if not over:
                    away, codes = judge_targets(ledger, letter)
                    strange = sorted(c for c in codes if not c.startswith(STAYS))
                    wrong += away + [f"I16: residual {code}" for code in strange]
                if not wrong:
                    break
        self._outcome.violations += wrong
        return codes

    def _require_told(self, since: int, name: str, title: str) -> None:
        def there() -> bool:
            text = self._lab.alert_text(since, name)
            return bool(text) and title in text

        try:
            self._it.wait(there, "the alert", seconds=10.0)
        except AssertionError:
            self._wrong(f"I19: nobody was told ({title or 'the account'})")

    def _compare_fills(self, session: str, ledger: Mapping[str, Any]) -> None:
        """I7: every fill of the exchange stands in the results, once."""
        answer = self._it.client.get(f"/results/{session}/transactions?limit=2000")
        rows: Any = answer["transactions"]
        recorded = [str(row["exchange_id"]) for row in rows]
        there = {str(fill["tradeId"]) for fill in ledger["fills"]}
        if missing := sorted(there - set(recorded)):
            self._wrong(f"I7: {len(missing)} fills are not recorded: {missing[:3]}")
        if len(set(recorded)) != len(recorded):
            self._wrong("I7: a fill is recorded twice")
        # One that the exchange lists although it never was is believed: nothing is traded by it.
        lied = self._case.name == "B3/renumbered" or self._case.fault == "seed"
        if (strange := sorted(set(recorded) - there)) and not lied:
            self._wrong(f"I7: {len(strange)} fills are recorded that never were: {strange[:3]}")

    def _flatten(self, account: str) -> str:
        """A later session can take the account over and leave it flat."""
        session = self._it.start(
            account, "all_flat", INTERVAL, cycles=1, on_end="flat", adopt_existing=True
        )
        view = self._it.wait_over(session)
        if view["state"] != "ended":
            self._wrong(f"I16: the next session could not make it flat: {view['reason']}")
        return session

    def _when_clean(self, exchange_id: str) -> Mapping[str, Any]:
        """The ledger once nothing is left, or after two world minutes."""
        settings = self._it.stack.settings
        with contextlib.closing(build_clock(settings, "test:conductor")) as clock:
            ledger = self._lab.ledger(exchange_id)
            for _ in range(12):
                if not (ledger["positions"] or ledger["plans"]):
                    break
                clock.sleep(10.0)
                ledger = self._lab.ledger(exchange_id)
        return ledger


@contextlib.contextmanager
def hangs_after(seconds: int) -> Iterator[None]:
    """CaseHangsError in the main thread when the block takes longer."""

    def ring(_number: int, _frame: object) -> None:
        raise CaseHangsError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def laboratory(keep: Path | None = None) -> Iterator[Laboratory]:
    """A fresh installation with a webhook that hears its alerts; its folder stays in `keep`."""
    with contextlib.ExitStack() as outer:
        if keep is None:
            folder = outer.enter_context(tempfile.TemporaryDirectory(prefix="aifap-faults-"))
        else:
            keep.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix="aifap-faults-", dir=keep)
        webhooks = WebhookServer()
        environment = pytest.MonkeyPatch()
        environment.setenv("AIFAP_SLACK_WEBHOOK_URL", webhooks.url("/slack"))
        environment.setenv("AIFAP_WEBHOOK_HOSTS", '["http://127.0.0.1"]')
        options = StandaloneOptions(Path(folder), free_port(), workers=1, speed=SPEED)
        stack = Standalone(options, lambda _line: None)
        with contextlib.ExitStack() as ending:
            ending.callback(environment.undo)
            ending.callback(webhooks.close)
            ending.callback(stack.stop)
            stack.start()
            token = stack.first_user("ada")
            assert token is not None
            yield Laboratory(Installation(stack, token, webhooks), webhooks)


def run_all(selection: str, seeds: Sequence[int], density: int, keep: Path | None = None) -> int:
    """The table, and one JSON object in the last line; the number of cases with violations."""
    work: list[tuple[str, bool, Callable[[Laboratory], Outcome]]] = [
        (case.name, case.dirty, lambda lab, case=case: lab.run(case))  # type: ignore[misc]
        for case in (chosen(selection) if selection else [])
    ]
    work += [
        (f"seed/{seed}", True, lambda lab, seed=seed: lab.run_seed(seed, density))  # type: ignore[misc]
        for seed in seeds
    ]
    work.sort(key=lambda item: item[1])
    started, bad, done = time.monotonic(), 0, 0
    print(f"{'case':18} {'fired':>5}  {'outcome':70}  {'took':>7}  violations", flush=True)
    while work:
        with laboratory(keep) as lab:
            for _ in range(min(CASES_PER_INSTALLATION, len(work))):
                name, dirty, trial = work.pop(0)
                outcome = _attempt(lab, name, trial)
                done += 1
                bad += bool(outcome.violations)
                print(outcome.line(), flush=True)
                if dirty or outcome.violations:
                    break
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"cases": done, "violations": bad, "seconds": seconds}), flush=True)
    return bad


def _attempt(lab: Laboratory, name: str, trial: Callable[[Laboratory], Outcome]) -> Outcome:
    try:
        return trial(lab)
    except (CaseHangsError, AssertionError, AifapError, OSError) as error:
        return Outcome(name, violations=[f"I17: {type(error).__name__}: {error}"])
