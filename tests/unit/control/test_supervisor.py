"""Real forks of small functions, real signals. The supervisor runs in a program of its own: see `supervised`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from penstock.control.supervisor import CANNOT_START, Supervisor, WorkerPlace, free_ports
from tests.peers.environments import ROOT

ON_LINUX = sys.platform == "linux"


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for what other processes do, bounded."""
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


class Supervised:
    """The program, what it says, and all processes that were ever a part of it."""

    def __init__(
        self,
        folder: Path,
        what: str,
        count: int = 2,
        temporary: Path | None = None,
        *,
        no_fork: tuple[int, int] | None = None,
        **more: Any,
    ) -> None:
        """`no_fork`: from which fork to which the system has no process."""
        self.temporary = temporary or folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.folder = folder
        self._log = folder / "log"
        self._log.touch()
        command = [sys.executable, "-m", "tests.unit.control.supervised", str(folder), str(count), what]
        command += map(str, no_fork or ())
        environment = os.environ | {"TMPDIR": str(self.temporary)}
        with (folder / "err").open("wb") as err:
            self.popen = subprocess.Popen(
                command, cwd=ROOT, env=environment, stderr=err, start_new_session=True, **more
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in [*self.pids(), *([self.popen.pid] if self.popen.poll() is None else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait(10)

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def said(self, what: str) -> list[list[str]]:
        """The rest of each line that begins with the word: worker, pid, and more."""
        lines = self._log.read_text().splitlines()
        return [line.split()[1:] for line in lines if line.startswith(f"{what} ")]

    def wait_for(self, what: str, count: int, seconds: float = 10.0) -> list[list[str]]:
        until(lambda: len(self.said(what)) >= count, seconds)
        return self.said(what)

    def pids(self) -> set[int]:
        """Of workers that still run."""
        all_of_them = {
            int(line.split()[2]) for line in self._log.read_text().splitlines() if line[:4] not in {"repr", "over"}
        }
        return {pid for pid in all_of_them if is_running(pid)}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(10)


def is_running(pid: int) -> bool:
    """Zombies do not count: who has to reap them is gone, and the system is slow to."""
    try:
        os.kill(pid, 0)
        return not ON_LINUX or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_each_worker_has_its_place_and_reaches_the_others(tmp_path: Path) -> None:
    with Supervised(tmp_path, "asks_the_others", 3) as it:
        ready = it.wait_for("ready", 3)
        assert sorted((index, count, restart) for index, _, count, restart in ready) == [
            ("0", "3", "0"),
            ("1", "3", "0"),
            ("2", "3", "0"),
        ]
        assert [line[2:] for line in it.wait_for("answer", 2)] == [["1.sock", "1"], ["2.sock", "2"]]
        assert it.said("repr") == [["<Supervisor", "[0", "of", "3", "running]>"]]


def test_nothing_is_left(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves") as it:
        it.wait_for("ready", 2)
        assert len(list(it.temporary.iterdir())) == 1
        assert it.end() == 0
        assert it.pids() == set()
        assert list(it.temporary.iterdir()) == []
        assert len(it.said("ended")) == 2


def test_a_worker_that_dies_is_started_again_under_its_number_and_the_others_go_on(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", 3) as it:
        pids = {line[0]: int(line[1]) for line in it.wait_for("ready", 3)}
        os.kill(pids["1"], signal.SIGKILL)
        again = it.wait_for("ready", 4, 2.0)[3]
        assert (again[0], again[3]) == ("1", "1")
        assert it.pids() == {pids["0"], pids["2"], int(again[1])}
        assert f"worker 1 (process {pids['1']}) was ended by signal 9; it is started again" in it.err
        assert it.end() == 0


def test_one_that_ends_at_once_is_started_ever_more_slowly(tmp_path: Path) -> None:
    with Supervised(tmp_path, "ends_at_once") as it:
        until(lambda: sum(line[0] == "1" for line in it.said("start")) >= 4)
        times = [float(line[2]) for line in it.said("start") if line[0] == "1"]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps[0] >= 0.2
        assert gaps[1] >= 0.5
        assert gaps[2] >= 1.0
        assert "ended with code 9" in it.err
        assert len([line for line in it.said("ready") if line[0] == "0"]) == 1
        it.end()


def test_an_error_in_a_worker_is_told_and_it_is_started_again(tmp_path: Path) -> None:
    with Supervised(tmp_path, "raises") as it:
        it.wait_for("ready", 2)
        assert "RuntimeError: a defect" in it.err
        assert it.end() == 0


@pytest.mark.parametrize("what", ["cannot_start", "cannot_start_slowly"])
def test_one_that_cannot_start_at_first_ends_them_all(what: str, tmp_path: Path) -> None:
    with Supervised(tmp_path, what) as it:
        assert it.popen.wait(10) == CANNOT_START
        assert len(it.said("start")) in {1, 2}
        assert it.pids() == set()
        assert list(it.temporary.iterdir()) == []


def test_one_that_cannot_start_again_is_tried_again_and_the_others_stay(tmp_path: Path) -> None:
    with Supervised(tmp_path, "cannot_start_again") as it:
        pids = {line[0]: int(line[1]) for line in it.wait_for("ready", 2)}
        os.kill(pids["1"], signal.SIGKILL)
        it.wait_for("start", 4)
        assert it.pids() >= {pids["0"]}
        assert it.popen.poll() is None
        assert it.end() == 0


def test_where_the_system_has_no_process_for_it_one_is_started_again_later_and_the_others_stay(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", no_fork=(3, 4)) as it:
        pids = {line[0]: int(line[1]) for line in it.wait_for("ready", 2)}
        os.kill(pids["1"], signal.SIGKILL)
        again = it.wait_for("ready", 3)[2]
        assert (again[0], again[3]) == ("1", "1")
        assert it.err.count("worker 1 cannot be started again: [Errno ") == 2
        assert "tried again in 0.5 s" in it.err
        assert int(pids["0"]) in it.pids()
        assert it.end() == 0


def test_where_the_system_has_no_process_for_it_at_first_they_all_end(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", no_fork=(2, 2)) as it:
        assert it.popen.wait(10) == CANNOT_START
        assert "worker 1 cannot be started: [Errno " in it.err
        assert "Traceback" not in it.err
        assert it.pids() == set()
        assert list(it.temporary.iterdir()) == []


@pytest.mark.parametrize("whole_group", [False, True], ids=["the supervisor alone", "from the terminal"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_exactly_once(number: signal.Signals, whole_group: bool, tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves") as it:
        it.wait_for("ready", 2)
        (os.killpg if whole_group else os.kill)(it.popen.pid, number)
        assert it.popen.wait(10) == 0
        assert sorted(line[0::2] for line in it.said("signal")) == [["0", number.name], ["1", number.name]]


def test_hangup_is_handed_on_once_and_nobody_ends(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves") as it:
        it.wait_for("ready", 2)
        os.killpg(it.popen.pid, signal.SIGHUP)
        it.wait_for("signal", 2)
        assert it.end() == 0
        assert sorted(line[2] for line in it.said("signal")) == ["SIGHUP", "SIGHUP", "SIGTERM", "SIGTERM"]
        assert len(it.said("ready")) == 2


def test_a_hangup_does_not_end_a_worker_that_is_just_starting(tmp_path: Path) -> None:
    with Supervised(tmp_path, "starts_slowly") as it:
        started = it.wait_for("start", 2)
        it.popen.send_signal(signal.SIGHUP)
        it.popen.send_signal(signal.SIGCONT)  # delivered after it: both are in the queue now
        os.kill(int(started[0][1]), signal.SIGHUP)
        (it.folder / "go").touch()
        assert {line[1] for line in it.wait_for("ready", 2)} == {line[1] for line in started}
        assert it.end() == 0


@pytest.mark.parametrize("turn", range(4))
def test_told_to_end_while_it_still_starts_workers_it_ends_them_all(turn: int, tmp_path: Path) -> None:
    with Supervised(tmp_path, "starts_slowly", 24) as it:
        it.wait_for("start", turn * 6 + 1)
        assert it.end() == 0
        assert it.pids() == set()
        assert len(it.said("over")) == 1


def test_workers_end_when_the_supervisor_is_killed_and_leave_nothing(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", 3) as it:
        it.wait_for("ready", 3)
        it.end(signal.SIGKILL)
        it.wait_for("orphaned", 3)
        until(lambda: not it.pids())
        assert list(it.temporary.iterdir()) == []


def test_workers_that_do_not_hear_are_killed_a_while_after_the_second_signal(tmp_path: Path) -> None:
    with Supervised(tmp_path, "is_deaf") as it:
        it.wait_for("ready", 2)
        it.popen.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            it.popen.wait(0.3)
        assert len(it.pids()) == 2
        it.end()
        assert it.pids() == set()


def test_the_first_learns_that_it_is_the_last(tmp_path: Path) -> None:
    with Supervised(tmp_path, "stays_for_the_others", 3) as it:
        pids = {line[0]: int(line[1]) for line in it.wait_for("ready", 3)}
        os.kill(pids["1"], signal.SIGKILL)  # one that comes back is not gone
        it.wait_for("ready", 4)
        assert it.said("alone") == []
        assert it.end() == 0
        lines = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
        assert lines.index("alone") > max(index for index, word in enumerate(lines) if word == "ended")


def test_its_exit_code_is_that_of_a_worker_that_ended_badly(tmp_path: Path) -> None:
    with Supervised(tmp_path, "ends_badly") as it:
        it.wait_for("ready", 2)
        assert it.end() == 3


def test_it_notices_ends_also_where_its_parent_ignored_those_of_children(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) as it:
        pids = {line[0]: int(line[1]) for line in it.wait_for("ready", 2)}
        os.kill(pids["1"], signal.SIGKILL)
        it.wait_for("ready", 3)
        assert it.end() == 0


def test_no_descriptor_is_where_nobody_needs_it(tmp_path: Path) -> None:
    with Supervised(tmp_path, "lists_descriptors", 3) as it:
        it.wait_for("ready", 3)
        for index in "012":
            own = [line[2].partition(":")[0] for line in it.said("descriptor") if line[0] == index]
            assert own.count("socket") == 2, "one that siblings connect to, one by which they pass connections"
            assert own.count("pipe") == 2, "that the supervisor lives, and for, or from, the others that they do"
        inherited = [line[2] for line in it.said("inherited")]
        assert not any("socket" in name for name in inherited)
        assert sum("pipe" in name for name in inherited) == 3 * 2, "its own two outputs"


def test_a_long_name_of_the_temporary_folder_does_not_matter(tmp_path: Path) -> None:
    with Supervised(tmp_path, "serves", temporary=tmp_path / ("x" * 120)) as it:
        it.wait_for("ready", 2)
        assert it.end() == 0
        assert list(it.temporary.iterdir()) == []


@pytest.mark.parametrize("count", [0, 65])
def test_there_is_a_least_and_a_most(count: int) -> None:
    def work(_place: WorkerPlace) -> int:
        raise AssertionError("never started")

    with pytest.raises(ValueError, match=f"expected 1 to 64 workers, got {count}"):
        Supervisor(count, work)


def test_free_ports_are_kept_until_the_workers_have_them() -> None:
    found, kept = free_ports([("127.0.0.1", 0), ("127.0.0.1", 8080)])
    with kept[0]:
        assert len(kept) == 1
        assert found == [kept[0].getsockname(), ("127.0.0.1", 8080)]
