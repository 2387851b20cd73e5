"""A reverse proxy that reads along on the WebSockets of its upstream, and changes what passes by."""

from llama import http, run, stack, ws
from llama.ws import Message


def censor(message: Message) -> Message | None:
    if message.data == "secret":
        return None  # nobody hears of it
    if isinstance(message.data, str) and not message.from_client:
        message.data = message.data.replace("cloud", "llama")
    return message


run(
    stack(http.server(), ws.inspect(censor), http.reverse_proxy("http://127.0.0.1:8000")),
    listen="127.0.0.1:8080",
)
