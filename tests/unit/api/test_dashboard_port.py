"""Ports: the dashboard's own is done without where somebody has it; services find theirs again."""

from __future__ import annotations

import socket
from pathlib import Path

from api.compose import second_socket
from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port

HOST = "127.0.0.1"


def test_a_free_port_is_bound_and_given_to_every_worker() -> None:
    listener = second_socket(HOST, free_port())
    assert listener is not None
    assert listener.get_inheritable()
    listener.close()


def test_a_port_of_somebody_else_is_done_without() -> None:
    with socket.create_server((HOST, 0)) as somebody:
        assert second_socket(HOST, somebody.getsockname()[1]) is None
    assert second_socket(HOST, 0) is None


def test_the_standalone_installation_says_that_the_port_is_taken(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.create_server((HOST, 0)) as somebody:
        taken = somebody.getsockname()[1]
        options = StandaloneOptions(tmp_path, 9, dashboard_port=taken)
        stack = Standalone(options, said.append)
        assert stack._free_dashboard_port() == 0
    assert str(taken) in said[0]
    assert "http://127.0.0.1:9/dashboard/ alone" in said[0]
    assert Standalone(StandaloneOptions(tmp_path, 9), said.append)._free_dashboard_port() == 0


def test_a_service_has_the_same_port_at_the_next_start_while_it_is_free(tmp_path: Path) -> None:
    stack = Standalone(StandaloneOptions(tmp_path, 9), lambda _line: None)
    first = stack._port_again("gateway_url")
    stack._save(gateway_url=f"http://{HOST}:{first}")
    assert stack._port_again("gateway_url") == first
    with socket.create_server((HOST, first)):
        assert stack._port_again("gateway_url") != first
