"""What a failed call proves about its connection: only where there was none did nothing leave."""

from __future__ import annotations

import ssl


def why_no_connection(failure: BaseException | None) -> str:
    """Why no request can have left: there was no connection, or whoever answers there did not
    prove who it is (A25). Empty: one may have left."""
    from requests.exceptions import ConnectionError as RequestsConnectionError
    from urllib3.exceptions import (
        ConnectTimeoutError,
        MaxRetryError,
        NewConnectionError,
        SSLError,
    )

    cause = failure.__cause__ if failure is not None else None
    inner = cause.args[0] if isinstance(cause, RequestsConnectionError) and cause.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else None
    if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
        return "cannot be reached"
    refused = reason.args[0] if isinstance(reason, SSLError) and reason.args else None
    if isinstance(refused, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not prove it is that host ({refused.verify_message})"
    return ""
