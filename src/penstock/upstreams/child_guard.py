"""End our children when this process is killed without a chance to do it itself.

Knows: process groups, one `/bin/sh` that waits on a pipe. Does not know: MCP, how a child is stopped in good order.
Invariant: a process group that was registered and not forgotten is ended within two seconds after this process is gone,
whatever killed it. Why it is done this way: docs/decisions/003-children.md.
"""

import asyncio
import contextlib
import os
import signal
from typing import Final

from penstock.upstreams.child_pipe import PipeEnd
from penstock.upstreams.child_spawn import Popen, spawn, watch_exit

_SCRIPT: Final = """
groups=" "
while read -r change group; do
  case $change in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
[ "$groups" = " " ] && exit 0
for group in $groups; do kill -s TERM -- "-$group"; done
sleep 1
for group in $groups; do kill -s KILL -- "-$group"; done
exit 0
"""
"""Reads `+ GROUP` and `- GROUP` lines; end of file means that the gateway is gone."""
_CLOSE_SECONDS: Final = 1.0


class ChildGuard:
    """A small process that outlives this one by a second and takes our children with it.

    One for the whole gateway process; started with the first child.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._popen: Popen | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._exited: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<ChildGuard {f'pid {self.pid}' if self.is_watching else 'not watching'} | groups {len(self._groups)}>"

    @property
    def is_watching(self) -> bool:
        """Whether the watching process runs."""
        return self._popen is not None

    @property
    def pid(self) -> int:
        """Of the watching process; 0 when there is none."""
        return 0 if self._popen is None else self._popen.pid

    async def start(self) -> None:
        """Start watching unless that is done already; a machine without `/bin/sh` is left unwatched."""
        async with self._starting:
            if self._popen is not None:
                return
            with contextlib.suppress(OSError):
                environment = {"PATH": os.environ.get("PATH", os.defpath)}
                popen = await spawn(("/bin/sh", "-c", _SCRIPT), environment=environment, cwd="/", has_output=False)
                loop = asyncio.get_running_loop()
                self._exited = loop.create_future()
                self._popen = popen
                watch_exit(popen, self._watcher_exited)
                assert popen.stdin is not None
                self._stdin = await PipeEnd(popen.stdin).connect_writer(asyncio.Protocol())
                for group in self._groups:
                    self._tell(b"+ %d\n" % group)

    def watch(self, group: int) -> None:
        """From now on the group ends with us."""
        self._groups.add(group)
        self._tell(b"+ %d\n" % group)

    def forget(self, group: int) -> None:
        """The group is gone; its number may soon be somebody else's."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell(b"- %d\n" % group)

    def kill(self) -> None:
        """End all registered groups now."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    async def close(self) -> None:
        """End the watching process; groups still registered are ended by it."""
        popen, exited = self._popen, self._exited
        if popen is None or exited is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        done, _ = await asyncio.wait((exited,), timeout=_CLOSE_SECONDS + (1.5 if self._groups else 0.0))
        if not done:
            popen.kill()
            await asyncio.wait((exited,), timeout=_CLOSE_SECONDS)

    def _watcher_exited(self) -> None:
        """Callback: the next `start` makes a new one."""
        popen, self._popen = self._popen, None
        if popen is not None:
            popen.poll()
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None
        if self._exited is not None and not self._exited.done():
            self._exited.set_result(None)

    def _tell(self, line: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(line)
