"""A call as a coroutine, which is what tasks take."""

from llama._core.service import RequestT, ResponseT, Service


async def call(service: Service[RequestT, ResponseT], input: RequestT) -> ResponseT:
    return await service(input)
