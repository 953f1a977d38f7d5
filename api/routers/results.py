"""What one's sessions were worth, minute by minute (RqueryAPI): `/results`.

sessions · latest · portfolio, indicators, symbols · gaps        here
positions, orders, trades, bills, cycles                         results_records
compare                                                          results_compare
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from api.answers import answer
from api.dependencies import AtDoors, SignedIn, own_session
from api.results_listings import (
    gap_listing,
    series_listing,
    session_documents,
    session_listing,
)
from api.results_queries import (
    AskedOfSession,
    AtList,
    Form,
    OfSession,
    answer_listing,
    json_answer,
)
from api.session_views import latest_view, visible_owner, watched_shape
from module.db.repositories.results_series import Resolution, Subject
from module.db.repositories.session_history import SessionFilter
from module.model.accounts import TradeEnv
from module.model.market import MarketType
from module.model.sessions import SessionState

router = APIRouter(prefix="/results", tags=["results"])
LIVING: Final = tuple(state.value for state in SessionState if not state.is_over)
OVER: Final = tuple(state.value for state in SessionState if state.is_over)
Columns = Annotated[
    str | None, Query(max_length=2_000, description="Names, `current_pv,roe`; all without it.")
]
Symbol = Annotated[str | None, Query(max_length=32)]
Named = Annotated[str | None, Query(max_length=64)]
States = Literal["living", "over", "starting", "running", "stopping", "ended", "failed"]


@router.get("/sessions")
def get_sessions(
    asked: AtList,
    state: States | None = None,
    account_id: Named = None,
    strategy_name: Annotated[str | None, Query(max_length=128)] = None,
    trade_type: Annotated[MarketType | None, Query(alias="tradeType")] = None,
    trade_env: TradeEnv | None = None,
    over: Annotated[int | None, Query(ge=0, le=500)] = None,
) -> Response:
    """One's sessions and their latest values; `start` and `end` are of when they began.

    `over`: all that are not over, and so many of those that are, in one answer.
    """
    if over is not None and asked.form is Form.JSON:
        owner = visible_owner(asked.user)
        records = asked.doors.sessions.list_for_owner(owner, over_max=over)
        sessions = session_documents(asked, records)
        return json_answer(asked.request, {"sessions": sessions, "next": None})
    states = {"living": LIVING, "over": OVER}.get(state or "", (state,) if state else None)
    wanted = SessionFilter(
        owner_id=visible_owner(asked.user),
        states=states,
        account_id=account_id,
        strategy_name=strategy_name,
        market=trade_type,
        trade_env=trade_env,
        started_since=asked.since,
        started_before=asked.until,
    )
    return answer_listing(asked, session_listing(asked, wanted))


@router.get("/{session_id}/latest")
def get_latest(doors: AtDoors, user: SignedIn, session_id: str) -> Response:
    """The newest minute: portfolio, symbols, indicators; null before the first one."""
    watched = watched_shape(own_session(doors, user, session_id))
    return answer({"session_id": session_id, "result": latest_view(doors.results.latest(watched))})


@router.get("/{session_id}/portfolio")
def get_portfolio(
    asked: OfSession, resolution: Resolution = Resolution.MINUTE, columns: Columns = None
) -> Response:
    """Portfolio rows of [start, end), oldest first; beyond `limit` the newest of them."""
    return _series(asked, Subject.PORTFOLIO, resolution, columns)


@router.get("/{session_id}/indicators")
def get_indicators(
    asked: OfSession, resolution: Resolution = Resolution.MINUTE, columns: Columns = None
) -> Response:
    """Indicator rows of [start, end), oldest first; beyond `limit` the newest of them."""
    return _series(asked, Subject.INDICATORS, resolution, columns)


@router.get("/{session_id}/symbols")
def get_symbols(
    asked: OfSession,
    resolution: Resolution = Resolution.MINUTE,
    columns: Columns = None,
    symbol: Symbol = None,
) -> Response:
    """Rows of each symbol of [start, end), oldest first; beyond `limit` the newest of them."""
    return _series(asked, Subject.SYMBOLS, resolution, columns, symbol)


@router.get("/{session_id}/gaps")
def get_gaps(asked: OfSession) -> Response:
    """Minutes without a row, and why."""
    return answer_listing(asked, gap_listing(asked))


def _series(
    asked: AskedOfSession,
    subject: Subject,
    resolution: Resolution,
    columns: str | None,
    symbol: str | None = None,
) -> Response:
    listing = series_listing(asked, subject, resolution, columns, symbol)
    if resolution is Resolution.MINUTE or asked.limit is None:
        return answer_listing(asked, listing)
    with asked.places.questions.one(asked.user.user_id):
        return answer_listing(asked, listing)
