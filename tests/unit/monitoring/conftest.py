"""Logs of these tests as the product writes them (the default renderer is slow)."""

from __future__ import annotations

from module.logs import configure_logs

configure_logs("tests")
