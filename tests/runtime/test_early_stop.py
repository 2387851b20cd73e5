"""A stop that comes between the opening of resources and the first accept."""

import asyncio

import pytest

from llama import Stream
from llama._runtime.listeners import listen
from llama._runtime.server_group import ServerGroup
from llama._runtime.servers_source import to_servers


class Stopper:
    """A handler with a resource, which is told to stop when that is open."""

    generation: ServerGroup
    rounds: int

    async def __aenter__(self) -> None:
        self.wait(self.rounds)

    def wait(self, rounds: int) -> None:
        """So many rounds of the loop later."""
        if rounds:
            asyncio.get_running_loop().call_soon(self.wait, rounds - 1)
        else:
            self.generation.stop()

    async def __aexit__(self, *error: object) -> None:
        pass

    async def __call__(self, stream: Stream, /) -> None:
        await stream.aclose()


@pytest.mark.parametrize("rounds", range(1, 6))
async def test_a_server_that_is_stopped_during_its_start_has_not_failed(rounds: int) -> None:
    stopper = Stopper()
    stopper.rounds = rounds
    stopper.generation = ServerGroup(listen(to_servers((stopper,), "127.0.0.1:0")))
    addresses = stopper.generation.addresses
    await stopper.generation.run(lambda: None)
    assert stopper.generation.addresses == addresses
