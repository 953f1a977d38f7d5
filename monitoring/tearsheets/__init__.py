"""Tear sheets: what a curve of portfolio values says about whoever traded it.

    stored rows of a session ─┐
    a backtest's own curve   ─┴─► CurveDocument ─► Desk (queue, cache on disk)
                                                    │ one short-lived process, over a pipe
                                                    ▼
                  worker: figures (empyrical, pyfolio) ─► charts (matplotlib) ─► page, picture

`worker` and what it imports (`frames`, `figures`, `charts`, `page`) cost seconds and hundreds of
megabytes and are imported by nobody else; everything else here is light.
"""
