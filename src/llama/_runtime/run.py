"""Running servers as a process: `run` blocks until a signal ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from llama._core.server import Server
from llama._core.stream import ConnectionHandler
from llama._runtime.gc_tuning import tuned_gc
from llama._runtime.servers_source import Address, Builder, ServersSource
from llama._runtime.single_process import Process
from llama._runtime.workers.supervisor import Supervisor, check_platform
from llama.tcp._io.event_loop import new_event_loop

Ready = Callable[[tuple[str, ...]], object]


def run(
    *parts: Server | ConnectionHandler | Builder,
    listen: Address | None = None,
    workers: int | None = None,
    grace: float | None = None,
    on_ready: Ready | None = None,
) -> None:
    """Serve until a signal ends it: `run(echo, listen="127.0.0.1:7007")`.

    Takes any number of servers, one handler and the address to `listen` on, or one function without arguments
    that returns either. SIGTERM and SIGINT stop accepting and let open connections finish, then `run` returns;
    `grace` limits that wait, in seconds, and a second signal ends it immediately. SIGHUP calls the function
    again: the new servers take over the sockets of those with the same address, the old ones drain, within `grace`.

    With `workers` this process forks and supervises that number of workers, which share the addresses. A worker
    that dies is replaced, at first without delay and then with a growing one; a reload replaces all workers once
    the new ones are ready. Workers end when this process does. The servers are built before the fork, so the
    workers share their state at that time, such as the keys of TLS session tickets; each worker has its own
    limits and opens its own context managers.

    While serving, the garbage collector runs after every 10,000 new objects, unless the program has set its
    thresholds. `on_ready` is called once with the bound addresses; systemd is notified too (`Type=notify-reload`).
    Raises ConfigError for an unsupported number of `workers`, OSError if an address cannot be bound, and whatever
    the function or a resource raises at the start.
    """
    plan = ServersSource(parts, listen)
    _check_caller()
    if workers is not None:
        check_platform(workers)
    with tuned_gc():
        if workers is not None:
            Supervisor(plan, workers, grace, on_ready).run()
            return
        process = Process(plan, grace, on_ready)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(process.main())


def _check_caller() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("run() blocks: inside a running loop, use `async with serve(...)`")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "run() handles signals, which only the main thread receives: use serve() elsewhere"
        )
