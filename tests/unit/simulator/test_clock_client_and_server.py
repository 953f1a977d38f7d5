"""The world clock over real sockets: who holds time, who is told, what a dead client leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest

from module.clock import SystemClock, WorldClock, from_epoch_ms, to_epoch_ms
from module.model.errors import Conflict, InvalidInput, InvariantViolated, Unavailable
from tests.fakes.stepped_world import START_MS, BeatingWorld, ClockThread, running_clock

pytestmark = pytest.mark.timeout(60)
START = from_epoch_ms(START_MS)

WORKER = """
import sys
from datetime import timedelta
from functools import partial
from module.clock import WorldClock, from_epoch_ms
port, name, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
clock = WorldClock("127.0.0.1", port, name)
print("registered", flush=True)
if what == "busy":
    sys.stdin.read()
elif what == "waiting":
    clock.sleep(3600 * 24)
else:
    for _ in range(int(what)):
        clock.sleep(7)
        print(clock.now().isoformat(), flush=True)
"""


@pytest.fixture
def server() -> Iterator[ClockThread]:
    with running_clock(BeatingWorld()) as thread:
        yield thread


def clock_of(server: ClockThread, name: str | None, reconnect_s: float = 20.0) -> WorldClock:
    return WorldClock("127.0.0.1", server.port, name, reconnect_s=reconnect_s)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def sleep_and_leave(clock: WorldClock, seconds: float) -> None:
    clock.sleep(seconds)
    clock.close()


def worker(server: ClockThread, name: str, what: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(server.port), name, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "registered\n"
    return process


def until_waiting(server: ClockThread, name: str) -> None:
    """Return when the server knows that `name` waits."""
    while True:
        status = server.call(server.server.status)
        if any(each.name == name and not each.busy for each in status.participants):
            return
        time.sleep(0.005)


def test_a_sleep_ends_exactly_when_it_is_due_and_passes_every_event_before(
    server: ClockThread,
) -> None:
    with clock_of(server, "leader") as clock:
        assert clock.now() == START
        clock.sleep(150.25)
        assert clock.now() == START + timedelta(seconds=150.25)
        assert server.world.steps == [
            START_MS + 60_000,
            START_MS + 120_000,
            START_MS + 150_250,
        ]


def test_time_stands_still_while_one_participant_is_busy(server: ClockThread) -> None:
    with clock_of(server, "busy one") as busy, clock_of(server, "sleeper") as sleeper:
        done = in_thread(lambda: sleep_and_leave(sleeper, 5))
        until_waiting(server, "sleeper")
        assert busy.now() == START
        assert clock_of(server, None).now() == START
        assert done.is_alive()
        busy.sleep(30)
        done.join(30)
        assert not done.is_alive()
    assert server.world.steps[0] == START_MS + 5_000


def test_participants_due_together_are_released_together_in_the_order_of_their_names() -> None:
    with running_clock(BeatingWorld()) as server:
        clocks = [clock_of(server, name) for name in ("b", "c", "a")]
        seen: list[tuple[str, int]] = []

        def sleep(clock: WorldClock) -> None:
            clock.sleep(7)
            seen.append((str(clock.participant), to_epoch_ms(clock.now())))
            clock.close()

        threads = [in_thread(partial(sleep, clock)) for clock in clocks]
        for thread in threads:
            thread.join(30)
        assert sorted(seen) == [(name, START_MS + 7_000) for name in "abc"]


def test_observers_ask_and_sleep_without_holding_time(server: ClockThread) -> None:
    observer = clock_of(server, None)
    slept = in_thread(lambda: observer.sleep(42))
    slept.join(30)  # nobody is registered and speed is unbounded: the alarm alone moves time
    assert not slept.is_alive()
    assert observer.now() == START + timedelta(seconds=42)
    with clock_of(server, "leader") as leader:
        again = in_thread(lambda: observer.sleep(10))
        while not server.call(server.server.status).alarms:
            time.sleep(0.005)
        leader.sleep(11)
        again.join(30)
        assert not again.is_alive()
        assert leader.now() == START + timedelta(seconds=53)
    observer.close()


def test_a_ringer_is_waited_for_and_the_rung_one_holds_time_at_once(server: ClockThread) -> None:
    bell_out, bell_in = os.pipe()
    heard: list[tuple[list[int], int]] = []
    with clock_of(server, "strategy") as strategy, clock_of(server, "leader") as leader:

        def listen() -> None:
            fds = strategy.wait_readable([bell_out], None)
            heard.append((fds, to_epoch_ms(strategy.now())))
            strategy.close()

        leader.sleep(0)
        thread = in_thread(listen)
        until_waiting(server, "strategy")
        leader.sleep(13)
        os.write(bell_in, b"!")
        leader.wake("strategy")
        leader.sleep(100)
        thread.join(30)
    assert heard == [([bell_out], START_MS + 13_000)]
    os.close(bell_out)
    os.close(bell_in)


def test_a_late_wake_without_a_bell_is_harmless(server: ClockThread) -> None:
    with clock_of(server, "strategy") as strategy, clock_of(server, "leader") as leader:
        leader.wake("strategy")  # it is busy: its next wait is answered at once, it waits again
        thread = in_thread(lambda: sleep_and_leave(strategy, 20))
        until_waiting(server, "strategy")
        leader.wake("strategy")
        leader.wake("nobody of this name")
        leader.sleep(60)
        thread.join(30)
        assert not thread.is_alive()
        assert leader.now() == START + timedelta(seconds=60)
        assert START_MS + 20_000 in server.world.steps


def test_a_descriptor_that_is_ready_already_gives_no_time_away(server: ClockThread) -> None:
    bell_out, bell_in = os.pipe()
    os.write(bell_in, b"!")
    with clock_of(server, "leader") as clock:
        assert clock.wait_readable([bell_out], START + timedelta(hours=1)) == [bell_out]
        assert clock.now() == START
        assert clock.wait_readable([], START) == []
        with pytest.raises(InvalidInput, match="for ever"):
            clock.wait_readable([], None)
    os.close(bell_out)
    os.close(bell_in)


@pytest.mark.parametrize("state", ["busy", "waiting"])
def test_a_killed_process_releases_the_world(server: ClockThread, state: str) -> None:
    with clock_of(server, "leader") as leader:
        process = worker(server, "victim", state)
        done = in_thread(lambda: leader.sleep(600))
        if state == "waiting":
            done.join(30)  # it gives time away: the leader gets there
            assert not done.is_alive()
            done = in_thread(lambda: leader.sleep(10))
            done.join(30)
        else:
            until_waiting(server, "leader")
            assert done.is_alive()
            assert server.world.now_ms == START_MS
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        done.join(30)
        assert not done.is_alive()
        while [each.name for each in server.call(server.server.status).participants] != ["leader"]:
            time.sleep(0.005)  # the kernel tells the server in its own time
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_several_processes_keep_one_time(server: ClockThread) -> None:
    with clock_of(server, "gate") as gate:
        processes = [worker(server, f"p{number}", "5") for number in range(3)]
        gate.sleep(100)
        for process in processes:
            out, _ = process.communicate(timeout=30)
            expected = [(START + timedelta(seconds=7 * step)).isoformat() for step in range(1, 6)]
            assert out.split() == expected


def test_the_newer_of_two_processes_with_one_name_wins(server: ClockThread) -> None:
    older = clock_of(server, "leader")
    newer = clock_of(server, "leader")
    with pytest.raises(Conflict, match="another process took the name"):
        older.sleep(1)
    newer.sleep(1)
    assert newer.now() == START + timedelta(seconds=1)
    newer.close()
    older.close()


def test_a_forked_child_is_told_to_make_its_own_and_keeps_no_hold_on_the_world(
    server: ClockThread,
) -> None:
    parent = clock_of(server, "parent")
    release_out, release_in = os.pipe()
    answer_out, answer_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            parent.now()
            os.write(answer_in, b"usable")
        except InvariantViolated:
            os.write(answer_in, b"refused")
        os.read(release_out, 1)
        os._exit(0)
    assert os.read(answer_out, 10) == b"refused"
    parent.close()  # the child lives on with a copy of every descriptor
    with clock_of(server, "other") as other:
        other.sleep(5)
        assert other.now() == START + timedelta(seconds=5)
    os.write(release_in, b"!")
    os.waitpid(pid, 0)
    for fd in (release_out, release_in, answer_out, answer_in):
        os.close(fd)


def test_a_restarted_server_goes_on_from_what_its_clients_know() -> None:
    first = ClockThread(BeatingWorld())
    clock = clock_of(first, "leader")
    clock.sleep(90)
    observer = clock_of(first, None)
    first.close()
    second = ClockThread(BeatingWorld(), port=first.port)
    clock.sleep(15)
    assert clock.now() == START + timedelta(seconds=105)
    assert observer.now() == START + timedelta(seconds=105)
    clock.close()
    observer.close()
    second.close()


def test_a_server_that_dies_while_somebody_waits_is_waited_for() -> None:
    first = ClockThread(BeatingWorld())
    holder = clock_of(first, "holder")
    clock = clock_of(first, "leader")
    done = in_thread(lambda: clock.sleep(33))
    until_waiting(first, "leader")
    first.close()
    second = ClockThread(BeatingWorld(), port=first.port)
    done.join(30)
    assert not done.is_alive()
    assert clock.now() == START + timedelta(seconds=33)
    clock.close()
    holder.close()
    second.close()


def test_a_restarted_server_stands_still_until_the_known_ones_are_back() -> None:
    server = ClockThread(BeatingWorld(), expected=("leader", "strategy"), hold_s=600)
    leader = clock_of(server, "leader")
    done = in_thread(lambda: leader.sleep(5))
    until_waiting(server, "leader")
    assert server.call(server.server.status).expected == ("strategy",)
    assert server.world.now_ms == START_MS
    strategy = clock_of(server, "strategy")
    strategy.close()
    done.join(30)
    assert not done.is_alive()
    assert server.marks[-1][0] == START_MS + 5_000
    leader.close()
    server.close()


def test_a_server_that_stays_away_is_an_error_that_says_so() -> None:
    server = ClockThread(BeatingWorld())
    clock = clock_of(server, "leader", reconnect_s=0.2)
    server.close()
    with pytest.raises(Unavailable, match=r"has not answered for 0\.2 s"):
        clock.sleep(1)
    clock.close()
    with pytest.raises(InvariantViolated, match="closed"):
        clock.now()


def test_nonsense_on_the_wire_is_answered_and_dropped(server: ClockThread) -> None:
    for line in (
        b"hello\n",
        b'{"op":"wait","seq":1}\n',
        b'{"op":"hello","known_ms":"x"}\n',
        b"[]\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(line)
            with raw.makefile() as answers:
                assert '"op":"error"' in answers.readline()
                assert answers.readline() == ""


def test_two_threads_may_not_wait_as_one_participant(server: ClockThread) -> None:
    with clock_of(server, "holder") as holder, clock_of(server, "leader") as clock:
        done = in_thread(lambda: clock.sleep(5))
        until_waiting(server, "leader")
        assert clock.now() == START  # asking is allowed
        with pytest.raises(InvariantViolated, match="two threads"):
            clock.sleep(1)
        holder.close()
        done.join(30)
        assert not done.is_alive()


def test_the_system_clock_waits_for_descriptors_and_times() -> None:
    bell_out, bell_in = os.pipe()
    clock = SystemClock()
    soon = clock.now() + timedelta(milliseconds=20)
    assert clock.wait_readable([bell_out], soon) == []
    assert clock.now() >= soon
    os.write(bell_in, b"!")
    assert clock.wait_readable([bell_out], None) == [bell_out]
    os.close(bell_in)
    assert clock.wait_readable([bell_out], None) == [bell_out]
    os.close(bell_out)
    clock.sleep_until(soon)
    with pytest.raises(InvariantViolated, match="not open"):
        clock.wait_readable([bell_out], soon)
