"""What is asked of the results, and how its answer goes out: one way for every list and series.

    query ─► Asked (whose, from when to when, how much, in which form)
    Listing (columns, read a page after a key) ─► JSON page with `next`, or CSV, streamed

A page goes on from a cursor: the key of the last row, and the question it belongs to, so that rows
that arrive meanwhile move nothing. A closed question has the same answer, and so the same ETag.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import quote, urlencode

from fastapi import Depends, Query, Request, Response

from api.answers import json_text
from api.csv_answers import CsvAnswer, csv_parts
from api.dependencies import AtDoors, Doors, SignedIn, own_session
from api.field_words import FieldError
from api.places import Places
from api.problems import InvalidFields
from api.session_views import watched_shape
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.users import UserRecord
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated, Retryable
from module.model.results import WatchedSession

ROWS_MAX: Final = 2_000
ROWS_DEFAULT: Final = 500
CSV_PAGE_ROWS: Final = 2_000
CSV_ROWS_MAX: Final = 5_000_000
READ_ATTEMPTS_MAX: Final = 4
READ_PAUSE_S: Final = 1.0
GZIP_BYTES_MIN: Final = 1_400
CURSOR_LENGTH_MAX: Final = 400
INSTANT_SHOWN_MAX: Final = 40
_NO_CURSOR: Final = "cursor is not the `next` of a page; leave it out to begin with the first one"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
_ABOUT_FORM: Final = frozenset({"cursor", "limit", "format"})  # the question stays the same

Key = Sequence[str | int]
"""Where a page ended: what JSON can hold."""


class Form(StrEnum):
    """How an answer is spelled."""

    JSON = "json"
    CSV = "csv"


class Order(StrEnum):
    """From which end of a range its pages begin."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class PageRows:
    """One page as it was read; `next_key` None: there is nothing behind it."""

    rows: Sequence[Sequence[object]]
    next_key: Key | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Something that can be read in pages: `read(after this key, at most so many)`.

    `name` is the list's in the JSON answer; `title` goes into the name of a file.
    `read_newest_last`: rows of a JSON page are turned round, so that the newest is the last one.
    `of_documents`: the one column of a row is the whole JSON object.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    read: Callable[[Key | None, int], PageRows]
    read_newest_last: bool = False
    of_documents: bool = False


@dataclass(frozen=True, slots=True)
class ResultPlaces:
    """How much may go on at once in this process, so that the live page always finds a
    connection: one in `app.state`."""

    questions: Places
    downloads: Places


def result_places() -> ResultPlaces:
    """What one process takes."""
    return ResultPlaces(
        questions=Places("long questions", each_max=2, all_max=4),
        downloads=Places("downloads", each_max=2, all_max=8),
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose results of [since, until) are asked for, how many rows (None: all, CSV alone), behind
    which key, and in which form they are to go out."""

    request: Request
    doors: Doors
    user: UserRecord
    since: datetime
    until: datetime
    limit: int | None
    key: Key | None
    order: Order
    form: Form

    @property
    def newest_first(self) -> bool:
        """Whether pages are read from the newest row backwards."""
        return self.order is Order.NEWEST

    @property
    def places(self) -> ResultPlaces:
        """This process's."""
        places: ResultPlaces = self.request.app.state.result_places
        return places


@dataclass(frozen=True, slots=True)
class AskedOfSession(Asked):
    """The same, of one session that the person may see."""

    record: SessionRecord
    watched: WatchedSession


Instant = Annotated[
    str | None, Query(max_length=40, description="ISO 8601 with an offset, 2026-11-21T10:30:00Z.")
]
Limit = Annotated[
    int | None, Query(ge=1, le=ROWS_MAX, description="Rows of a page. CSV without it: all of them.")
]
Cursor = Annotated[
    str | None, Query(max_length=CURSOR_LENGTH_MAX, description="`next` of the page before.")
]
Begin = Annotated[
    Order | None,
    Query(alias="order", description="Where pages begin; newest (CSV: oldest) unless said."),
]
AskedForm = Annotated[
    Form | None, Query(alias="format", description="Else the Accept header decides.")
]


def asked(
    request: Request,
    doors: AtDoors,
    user: SignedIn,
    start: Instant = None,
    end: Instant = None,
    limit: Limit = None,
    cursor: Cursor = None,
    order: Begin = None,
    form: AskedForm = None,
) -> Asked:
    """What every list takes: `start`, `end`, `limit`, `cursor`, `order`, `format`."""
    chosen = form or accepted_form(request.headers.get("accept", ""))
    since = EPOCH if start is None else read_instant("start", start)
    until = doors.clock.now() + MINUTE if end is None else read_instant("end", end)
    key: Key | None = None
    if cursor is not None:
        since, until, key = read_cursor(cursor, question_of(request))
    if since >= until:
        what = "end" if end is not None else "now, where the range ends without end"
        raise InvalidInput(
            f"start is {instant_text(since)}; it must be before {what}: {instant_text(until)}"
        )
    oldest = chosen is Form.CSV and limit is None
    return Asked(
        request=request,
        doors=doors,
        user=user,
        since=since,
        until=until,
        limit=limit or (None if oldest else ROWS_DEFAULT),
        key=key,
        order=order or (Order.OLDEST if oldest else Order.NEWEST),
        form=chosen,
    )


def asked_of_session(found: Annotated[Asked, Depends(asked)], session_id: str) -> AskedOfSession:
    """The same of `session_id`; NotFound when it is not the person's."""
    record = own_session(found.doors, found.user, session_id)
    return AskedOfSession(
        request=found.request,
        doors=found.doors,
        user=found.user,
        since=found.since,
        until=found.until,
        limit=found.limit,
        key=found.key,
        order=found.order,
        form=found.form,
        record=record,
        watched=watched_shape(record),
    )


AtList = Annotated[Asked, Depends(asked)]
OfSession = Annotated[AskedOfSession, Depends(asked_of_session)]

# --- reading what was asked -----------------------------------------------------------------------


def read_instant(name: str, text: str) -> datetime:
    """The time that `text` spells; InvalidInput names the parameter and shows how it looks."""
    try:
        return _storable(parse_instant(text))
    except (ValueError, OverflowError, InvariantViolated) as error:
        raise InvalidInput(
            f"{name} must be an ISO 8601 time with an offset, e.g. 2026-11-21T10:30:00Z "
            f"(in an address + is %2B), got {text[:INSTANT_SHOWN_MAX]!r}"
        ) from error


def _storable(when: datetime) -> datetime:
    """`when`, drawn in to where rows can be: arithmetic around the calendar's ends overflows."""
    return min(max(when, EPOCH), LAST)


def read_columns(text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names in `text` (`a,b`), in its order, once each; all of `known` without one.

    InvalidFields names what is not known, and what is.
    """
    if text is None:
        return tuple(known)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        said = f"there is no column {unknown[0][:60]!r}" if unknown else "no column is named"
        raise InvalidFields([FieldError("columns", f"{said}; known are {', '.join(known)}")])
    return names


def accepted_form(accept: str) -> Form:
    """CSV when the Accept header wants it more than JSON; JSON else."""
    weights = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in weights:
            weights[kind] = _quality(parameters)
    return Form.CSV if weights["text/csv"] > weights["application/json"] else Form.JSON


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def takes_gzip(request: Request) -> bool:
    """Whether the client unpacks gzip."""
    for part in request.headers.get("accept-encoding", "").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind == "gzip":
            return _quality(parameters) > 0
    return False


# --- cursors --------------------------------------------------------------------------------------


def question_of(request: Request) -> str:
    """Path and query, but for what only says how the answer is cut and spelled."""
    kept = sorted((k, v) for k, v in request.query_params.multi_items() if k not in _ABOUT_FORM)
    return hashlib.sha256(json.dumps([request.url.path, kept]).encode()).hexdigest()[:16]


def spell_cursor(question: str, since: datetime, until: datetime, key: Key) -> str:
    """Where the next page begins. The range goes along: "until now" is the first page's now."""
    document = [question, since.isoformat(), until.isoformat(), *key]
    raw = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(text: str, question: str) -> tuple[datetime, datetime, Key]:
    """What `spell_cursor` wrote; InvalidInput when it is not that, or of another question."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        whose, since, until, *key = json.loads(raw)
        found = _storable(parse_instant(since)), _storable(parse_instant(until))
        whole = all(_is_key_part(part) for part in key) and len(key) > 0
    except (
        ValueError, TypeError, AttributeError, binascii.Error, RecursionError, OverflowError,
        InvariantViolated,
    ) as error:  # fmt: skip
        raise InvalidInput(_NO_CURSOR) from error
    if whose != question or not whole:
        raise InvalidInput(
            "cursor is of another question: keep all parameters of the page before but cursor, "
            "limit and format; or leave it out to begin with the first page"
        )
    return (*found, tuple(key))


def key_instant(part: object) -> datetime:
    """A time of a cursor's key."""
    try:
        return _storable(parse_instant(str(part)))
    except (ValueError, OverflowError, InvariantViolated) as error:
        raise InvalidInput(_NO_CURSOR) from error


def _is_key_part(part: object) -> bool:
    """A number, or text that the database can compare with."""
    if isinstance(part, str):
        return "\0" not in part and not any("\ud800" <= each <= "\udfff" for each in part)
    return isinstance(part, int)


def key_number(part: object) -> int:
    """A whole number of a cursor's key, of the size of a row's id."""
    if not isinstance(part, int) or isinstance(part, bool) or not 0 <= part < 2**63:
        raise InvalidInput(_NO_CURSOR)
    return part


# --- answering ------------------------------------------------------------------------------------


def answer_listing(question: Asked, listing: Listing) -> Response:
    """One page as JSON; or CSV: one page where a `limit` was given, else all of it, streamed."""
    if question.form is Form.CSV:
        return _csv(question, listing)
    limit = question.limit or ROWS_DEFAULT
    page = listing.read(question.key, limit)
    rows: list[object]
    if listing.of_documents:
        rows = [row[0] for row in page.rows]
    else:
        rows = [dict(zip(listing.columns, row, strict=True)) for row in page.rows]
    if listing.read_newest_last and question.newest_first:
        rows.reverse()
    following = _next(question, page)
    document = {listing.name: rows, "next": following}
    return json_answer(question.request, document, links(question.request, following))


def json_answer(
    request: Request, document: object, headers: dict[str, str] | None = None
) -> Response:
    """The document with an ETag (304 to who has it already), packed where that is worth it."""
    body = json_text(document).encode()
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    sent = {"etag": tag, "vary": "Accept, Accept-Encoding", **(headers or {})}
    known = [item.strip() for item in request.headers.get("if-none-match", "").split(",")]
    if tag in known or tag.removeprefix("W/") in known:
        return Response(status_code=304, headers=sent)
    if len(body) >= GZIP_BYTES_MIN and takes_gzip(request):
        body = gzip.compress(body, compresslevel=5, mtime=0)
        sent["content-encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=sent)


def links(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header that leads to the next page (RFC 8288); none behind the last one."""
    if cursor is None:
        return {}
    kept = [(k, v) for k, v in request.query_params.multi_items() if k != "cursor"]
    target = f"{quote(request.url.path)}?{urlencode([*kept, ('cursor', cursor)])}"
    return {"link": f'<{target}>; rel="next"'}


def csv_answer(
    question: Asked,
    title: str,
    columns: Sequence[str],
    pages: Iterator[Sequence[Sequence[object]]],
    headers: dict[str, str] | None = None,
) -> Response:
    """The pages as a download. The first one is read before the answer begins: what is wrong with
    the question is a problem document, not half a file. Takes a place until the last byte."""
    with ExitStack() as place:
        place.enter_context(question.places.downloads.one(question.user.user_id))
        first = next(pages, [])
        held = place.pop_all()

    def all_pages() -> Iterator[Sequence[Sequence[object]]]:
        yield first
        yield from pages

    return CsvAnswer(
        csv_parts(columns, all_pages()),
        name=f"aifap-{title}.csv",
        squeeze=takes_gzip(question.request),
        closed=held.close,
        headers=headers,
    )


def _csv(question: Asked, listing: Listing) -> Response:
    if question.limit is not None:
        page = listing.read(question.key, question.limit)
        rows = list(page.rows)
        if listing.read_newest_last and question.newest_first:
            rows.reverse()
        following = links(question.request, _next(question, page))
        return csv_answer(question, listing.title, listing.columns, iter([rows]), following)
    return csv_answer(question, listing.title, listing.columns, _all_pages(question, listing))


def _all_pages(question: Asked, listing: Listing) -> Iterator[Sequence[Sequence[object]]]:
    key, count = question.key, 0
    while True:
        page = _patiently(question, listing, key)
        yield page.rows
        count += len(page.rows)
        if page.next_key is None:
            return
        if count >= CSV_ROWS_MAX:
            # The answer has begun: cutting it off is how it is told.
            raise InvalidInput(f"a file has at most {CSV_ROWS_MAX} rows; ask for a shorter range")
        key = page.next_key


def _patiently(question: Asked, listing: Listing, key: Key | None) -> PageRows:
    """Read a page; in the middle of a file also past a moment's trouble of the database."""
    attempts = READ_ATTEMPTS_MAX if key is not None else 1
    for attempt in range(1, attempts + 1):
        try:
            return listing.read(key, CSV_PAGE_ROWS)
        except Retryable:
            if attempt == attempts:
                raise
            question.doors.clock.pause(READ_PAUSE_S)
    raise InvariantViolated("the last attempt neither returned nor raised")


def _next(question: Asked, page: PageRows) -> str | None:
    if page.next_key is None:
        return None
    name = question_of(question.request)
    return spell_cursor(name, question.since, question.until, page.next_key)
