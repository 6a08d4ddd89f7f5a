"""`make demo` as a newcomer runs it, and what it leaves behind."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clients import EventStream, request
from servers import ROOT, Process, free_port, wait_until


class Demo:
    def __init__(self, directory, **env):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "demo.log"
        self.process = Process(
            [sys.executable, "sample_app/demo.py"],
            self.log,
            {"DEMO_PORT": str(self.port), "DEMO_DIR": str(directory / "demo"), **env},
        )

    def wait(self):
        """Until the demo has said where it is: from then on it is all there."""
        wait_until(
            lambda: self.url in self.log.read_text() or self._died(),
            "the demo says its address",
            60,
        )

    def _died(self):
        assert self.process.popen.poll() is None, self.log.read_text()

    def processes(self):
        """The demo and all its descendants: they share an environment variable."""
        marked = f"DEMO_PORT={self.port}".encode()
        found = []
        for pid in all_pids():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if marked in file.read().split(b"\0"):
                        found.append(pid)
            except OSError:
                continue
        return found


def all_pids():
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


@pytest.mark.parametrize(
    "proxy", ["local", pytest.param("pushpin", marks=pytest.mark.pushpin)]
)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_moves_and_leaves_no_process_behind(tmp_path, proxy, ending):
    demo = Demo(tmp_path, DEMO_PROXY=proxy)
    try:
        demo.wait()
        with EventStream(f"{demo.url}/api/lots/stream/") as stream:
            assert stream.next().event == "ready"
            # The simulated bidders move the auction by themselves.
            assert stream.next(timeout=30).event == "update"
        before = demo.processes()
        assert len(before) >= 3
        demo.process.popen.send_signal(ending)
        assert demo.process.popen.wait(20) == 0
        wait_until(lambda: not demo.processes(), "every process ends", 10)
        assert demo.url in demo.log.read_text()
    finally:
        demo.process.stop()


def test_demo_simulate_0_has_no_bidders(tmp_path):
    demo = Demo(tmp_path, DEMO_SIMULATE="0")
    try:
        demo.wait()
        before = request(f"{demo.url}/api/lots/").json()
        lot = before[0]
        with EventStream(f"{demo.url}/api/lots/stream/") as stream:
            assert stream.next().event == "ready"
            amount = f"{float(lot['current_price']) + 10:.2f}"
            answer = request(
                f"{demo.url}/api/lots/{lot['id']}/bid/",
                "POST",
                {"bidder": "paddle-7", "amount": amount},
            )
            assert answer.status == 201
            event = stream.next().envelope
            assert (event["pk"], event["data"]["current_price"]) == (lot["id"], amount)
            assert stream.waiting() == 0
        commands = [
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in demo.processes()
        ]
        assert not [command for command in commands if b"simulate_bids" in command]
    finally:
        demo.process.stop()


def test_a_port_in_use_is_said_in_one_line_with_the_cure(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "sample_app/demo.py"],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "DEMO_PORT": str(port),
                "DEMO_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1
    assert str(port) in lines[0]
    assert "DEMO_PORT=" in lines[0]


def test_a_missing_pushpin_is_said_in_one_line_with_the_cure(tmp_path):
    done = subprocess.run(
        [sys.executable, "sample_app/demo.py"],
        cwd=ROOT,
        env={
            "PATH": str(tmp_path),
            "DEMO_PORT": str(free_port()),
            "DEMO_DIR": str(tmp_path),
            "DEMO_PROXY": "pushpin",
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1
    assert "make system" in lines[0]
