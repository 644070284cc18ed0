"""The process: uvicorn around a service, until it is told to stop; then everything that was accepted is answered."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from arm_lens.service.app import Service


def run(service: Service, host: str, port: int, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept nothing more, answer what was accepted, and return.

    Args:
        service: what is served.
        host: the address to listen at.
        port: its port; 0 for any free one.
        started: called with the service's address once it listens.

    Raises:
        OSError: if the address cannot be listened at.
    """
    config = uvicorn.Config(
        service.app, host=host, port=port, log_level="warning", access_log=False, server_header=False, lifespan="on",
        ws="none", timeout_keep_alive=30,
    )  # fmt: skip
    server = _Server(config, started)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    # uvicorn handles these signals while it runs, and raises them again afterwards, which must not end the process then.
    before = {one: signal.signal(one, server.stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        for one, handler in before.items():
            signal.signal(one, handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._started = started

    def stop(self, signal: int, frame: FrameType | None) -> None:
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._started(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
