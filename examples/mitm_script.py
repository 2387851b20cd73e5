"""Hooks for `llama mitm --script mitm_script.py`, which loads this file again whenever it changes."""

from llama import layer, ws
from llama.http import Request, RequestHandler, Response


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    if request.path == "/favicon.ico":
        return Response(404)  # the upstream is not asked
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


def on_message(message: ws.Message) -> ws.Message | None:
    if message.from_client and isinstance(message.data, str):
        message.data = message.data.replace("cloud", "llama")
    return message


layers = [rewrite]
