"""A SOCKS5 server for one user, who may reach anything but mail servers."""

from llama import run, socks5

run(
    socks5.server(auth={"john": "secret"}, rules=socks5.deny("*:25")),
    listen="127.0.0.1:1080",
)
