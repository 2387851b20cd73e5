"""The supervisor of workers: it binds the sockets, forks, replaces dead workers, and reloads.

Situations to handle: a worker can die at any time, a configuration can fail to build, bind or start, a reload can
arrive during a reload, and signals can arrive between any two instructions. Failures to rule out: a refused
or reset connection because of a reload or a dead worker, a failed reload that damages the running
configuration, a fork loop at full speed, or a worker that outlives this process.

- This process has no event loop and no thread, because a fork copies neither safely. One poll selector waits
  for the workers' control sockets and for signals, which arrive as bytes on a socket (`Wakeup`), so that a
  signal only sets state and `_advance` takes each step when it is due. Signals are blocked around the fork.
- Each worker slot has its own SO_REUSEPORT sockets, created here and kept open until shutdown: the connections
  in the queue of a dead worker wait for its replacement. One socket shared by all workers distributes unevenly
  (measured: 368 and 32 connections for two workers, against 188 and 212), and closing one SO_REUSEPORT socket
  resets its queue (107 of 200 connections; none while the parent holds it open).
- A reload builds and binds the new configuration first. A server of the same type and address inherits the
  sockets of its predecessor, slot by slot. The old workers retire only after every new worker is ready; until
  then any failure abandons the pending configuration and leaves the current one untouched (`_abort_reload`).
- A retiring worker leaves the queues of inherited sockets to its successor and accepts those of all others.
  A reload during a reload waits until the old workers have stopped accepting.
- On shutdown the sockets are closed here before the workers receive "stop", so that a worker's close is the
  last one and no connection can enter a queue that no process accepts from.
- A replacement is immediate for a worker that lived long enough, else delayed with a growing backoff.
- A worker drains when its control socket reports the end of this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from llama._core.errors import ConfigError, LlamaError
from llama._core.server import Server
from llama._runtime.listeners import Listener, close, listen
from llama._runtime.servers_source import ServersSource
from llama._runtime.signals import Wakeup, unblock
from llama._runtime.systemd import Notifier
from llama._runtime.workers.worker import run_worker
from llama._runtime.workers.worker_handle import Backoff, WorkerHandle, WorkerListeners

log = logging.getLogger("llama.server")
FORCED_STOP_TIMEOUT = 2.0  # seconds before SIGKILL for a worker that was ordered to exit immediately
KILL_GRACE = 5.0  # seconds after the grace period in which workers cancel their connections themselves


def check_platform(workers: int) -> None:
    """Raise ConfigError for a number of workers that is invalid or unsupported here."""
    if workers < 1:
        raise ConfigError(f"workers={workers}: expected at least 1")
    if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(f"workers={workers}: {sys.platform} cannot fork workers that share a port")


class Supervisor:
    """Keeps one worker in each slot: replaces dead ones, replaces all on SIGHUP, stops them on SIGTERM."""

    def __init__(
        self,
        plan: ServersSource,
        workers: int,
        grace: float | None,
        on_ready: Callable[[tuple[str, ...]], object] | None,
    ) -> None:
        self._plan = plan
        self._workers = workers
        self._grace = grace
        self._on_ready = on_ready
        self._notifier = Notifier()
        self._wakeup = Wakeup(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        self._selector = selectors.PollSelector()
        self._children: set[WorkerHandle] = set()
        self._current: WorkerListeners | None = None
        self._pending: WorkerListeners | None = None
        self._respawn_at: dict[int, float] = {}  # the time of the next fork, by slot
        self._backoff = [Backoff() for _ in range(workers)]
        self._reload_wanted = self._draining_old = self._stopping = self._force_stop = False
        self._kill_at: float | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        """Fork the workers and supervise them; returns when the last one has ended."""
        with self._wakeup:
            self._selector.register(self._wakeup.reader, selectors.EVENT_READ, self._on_signals)
            try:
                self._build()
                while self._children or not self._stopping:
                    self._tick()
            finally:
                self._clear()
        if self._failure is not None:
            raise self._failure
        log.info("stopped")

    def _clear(self) -> None:
        for child in tuple(self._children):
            child.kill()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
            self._remove_child(child)
        self._close_listeners()
        self._selector.close()

    def _close_listeners(self) -> None:
        for slots in (self._current, self._pending):
            if slots is not None:
                close(slots.all())

    def _tick(self) -> None:
        for key, _ in self._selector.select(self._poll_timeout()):
            key.data()
        for child in tuple(self._children):
            if (end := child.reap()) is not None:
                self._on_worker_exit(child, end)
        self._advance()
        now = time.monotonic()
        for slot in [slot for slot, due in self._respawn_at.items() if due <= now]:
            self._replace(slot)
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            for child in self._children:
                child.kill()

    def _poll_timeout(self) -> float | None:
        times = [*self._respawn_at.values(), *([] if self._kill_at is None else [self._kill_at])]
        return max(0.0, min(times) - time.monotonic()) if times else None

    # --- signals ---

    def _on_signals(self) -> None:
        for number in self._wakeup.received():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._on_sigterm()
            elif number == signal.SIGHUP and self._plan.is_reloadable:
                self._reload_wanted = True
            elif number == signal.SIGHUP:
                log.info("SIGHUP ignored: run() was not given a function that builds the servers")
                self._notifier.reload_skipped()

    def _on_sigterm(self) -> None:
        if not self._stopping:
            self._notifier.stopping()
            log.info("stopping %d workers", len(self._children))
            self._stop()
            if self._grace is not None:
                self._kill_at = time.monotonic() + self._grace + KILL_GRACE
        else:
            log.warning("second signal: exiting immediately")
            self._send_to_all("now")
            self._kill_at = time.monotonic() + (0.0 if self._force_stop else FORCED_STOP_TIMEOUT)
            self._force_stop = True

    def _stop(self) -> None:
        """Stop all workers; close the sockets here first, so that the workers hold the last copies."""
        self._stopping = True
        self._respawn_at.clear()
        self._close_listeners()
        self._send_to_all("stop")

    def _send_to_all(self, command: str) -> None:
        for child in self._children:
            child.send_command(command)

    # --- configurations ---

    def _build(self) -> None:
        """Build the servers, bind new addresses, and fork a worker for each slot."""
        servers = self._plan.build()
        self._pending = self._bind(servers)
        for slot in range(self._workers):
            self._fork(self._pending, slot)

    def _bind(self, servers: Sequence[Server]) -> WorkerListeners:
        made: list[list[Listener]] = []
        try:
            for slot in range(self._workers):
                before = self._current.slots[slot] if self._current is not None else ()
                beside = made[0] if made else ()
                made.append(listen(servers, before, reuse_port=self._workers > 1, siblings=beside))
        except BaseException:
            close(each for slot in made for each in slot)
            raise
        return WorkerListeners(made)

    def _advance(self) -> None:
        """Take the next step of a start or a reload, if it is due."""
        if self._stopping:
            return
        if self._pending is not None:
            if sum(each.ready for each in self._children if each.slots is self._pending) == self._workers:
                self._promote(self._pending)
        elif self._draining_old and all(each.stopped for each in self._children if each.retired):
            self._draining_old = False
            self._notifier.ready()
            log.info("reloaded, listening on %s", ", ".join(self._addresses()))
        elif self._reload_wanted and not self._draining_old:
            self._reload()

    def _reload(self) -> None:
        self._reload_wanted = False
        self._notifier.reloading()
        try:
            self._build()
        except Exception as error:
            self._abort_reload(f"{type(error).__name__}: {error}")

    def _abort_reload(self, reason: str) -> None:
        """Discard the pending configuration and keep the current one; at the start, fail instead."""
        for child in self._children:
            if child.slots is self._pending:
                child.retired = child.stopped = True
                child.send_command("now")
        if self._pending is not None:
            close(self._pending.all())
            self._pending = None
        if self._current is None:
            self._failure = _startup_error(reason)
            self._stop()
            self._kill_at = time.monotonic() + FORCED_STOP_TIMEOUT
            return
        log.error("reload failed, the current configuration stays active: %s", reason)
        self._notifier.ready()

    def _promote(self, fresh: WorkerListeners) -> None:
        """Make the pending configuration current, now that all its workers are ready, and retire the others."""
        old, self._current, self._pending = self._current, fresh, None
        taken = {each.inherited_from for each in fresh.all()}
        for each in fresh.all():
            each.adopt_path()
        if old is None:
            self._announce()
            return
        self._draining_old = True
        self._respawn_at.clear()
        self._backoff = [Backoff() for _ in range(self._workers)]
        close(old.all())
        for child in self._children:
            if child.slots is old:
                child.retired = True
                flags = ("1" if each in taken else "0" for each in old.slots[child.slot])
                child.send_command(f"retire {''.join(flags)}")

    def _announce(self) -> None:
        log.info("listening on %s with %d workers", ", ".join(self._addresses()), self._workers)
        if self._on_ready is not None:
            self._on_ready(self._addresses())
        self._notifier.ready()

    def _addresses(self) -> tuple[str, ...]:
        return self._current.addresses() if self._current is not None else ()

    # --- processes ---

    def _fork(self, slots: WorkerListeners, slot: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        sys.stdout.flush()
        sys.stderr.flush()
        mask = self._wakeup.block()
        try:
            pid = os.fork()
            if not pid:
                ours.close()
                self._become_worker(slots.slots[slot], theirs, mask)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            unblock(mask)
        child = WorkerHandle(pid, slots, slot, ours)
        self._children.add(child)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_worker_message(child))

    def _become_worker(self, listeners: list[Listener], control: socket.socket, mask: set[int]) -> NoReturn:
        status = 1
        try:
            self._wakeup.detach_after_fork()
            for child in self._children:
                child.control.close()
            self._close_others(listeners)
            status = run_worker(listeners, control, self._grace, mask)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            log.exception("a worker failed")
        finally:
            os._exit(status)

    def _close_others(self, mine: list[Listener]) -> None:
        for slots in (self._current, self._pending):
            for each in slots.all() if slots is not None else ():
                each.owns_path = False
                if each not in mine:
                    each.close()

    def _on_worker_message(self, child: WorkerHandle) -> None:
        if not child.read_status():
            self._selector.unregister(child.control)

    def _remove_child(self, child: WorkerHandle) -> None:
        self._children.discard(child)
        if child.control in self._selector.get_map():
            self._selector.unregister(child.control)
        child.control.close()

    def _on_worker_exit(self, child: WorkerHandle, end: str) -> None:
        child.read_status()
        self._remove_child(child)
        if self._stopping or child.retired:
            if end != "exit status 0":
                log.warning("worker %d ended: %s", child.pid, end)
        elif child.slots is self._pending:
            self._abort_reload(child.failure or f"worker {child.pid} ended before it was ready: {end}")
        else:
            delay = self._backoff[child.slot].delay(child.age)
            self._respawn_at[child.slot] = time.monotonic() + delay
            when = f"in {delay:g} s" if delay else "at once"
            log.error("worker %d died: %s; replacing it %s", child.pid, end, when)

    def _replace(self, slot: int) -> None:
        del self._respawn_at[slot]
        if self._current is None:
            return
        try:
            self._fork(self._current, slot)
        except OSError as error:
            delay = self._backoff[slot].delay(0.0)
            self._respawn_at[slot] = time.monotonic() + delay
            log.error("cannot fork a worker, retrying in %g s: %s", delay, error)


def _startup_error(reason: str) -> Exception:
    kind, _, text = reason.partition(": ")
    return ConfigError(text) if kind == "ConfigError" else LlamaError(f"a worker could not start: {reason}")
