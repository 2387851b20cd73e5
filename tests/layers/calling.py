"""A call as a coroutine, which is what tasks take."""

from llama._core.service import I, O, Service


async def call(service: Service[I, O], input: I) -> O:
    return await service(input)
