"""Named points of the program: where a simulation may end a process, and see that it got there.

Effects call `reach(name)` between any two steps that a crash must be able to separate ("order_info:
renamed", "gateway: reserved"). In production nobody listens and a point costs one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]
_listeners: list[Listener] = []


def reach(name: str) -> None:
    """The program is at this point now; a listener may raise to end it here."""
    if _listeners:
        _listeners[-1](name)


def listen(listener: Listener | None) -> None:
    """Tell `listener` alone of every point from now on; None: nobody. For simulations only."""
    _listeners[:] = [] if listener is None else [listener]
