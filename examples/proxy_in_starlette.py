"""A reverse proxy as one part of a Starlette (or FastAPI) application, under any ASGI server.

uvicorn proxy_in_starlette:app
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from llama import asgi, http, run, stack, to_asgi

api = to_asgi(stack(http.request_id(), http.reverse_proxy("http://127.0.0.1:8000")))


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("at home\n")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with api:  # its connections are closed when the application ends
        yield


app = Starlette(routes=[Route("/", home), Mount("/api", api)], lifespan=lifespan)

if __name__ == "__main__":
    run(stack(http.server(), asgi(app)), listen="127.0.0.1:8080")
