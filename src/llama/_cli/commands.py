"""The commands."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import click
from click.shell_completion import get_completion_class

from llama import ConnectionHandler, Target, run
from llama._cli import common_options as common
from llama._cli import logs, param_types, stacks
from llama._cli.common_options import CommonOptions
from llama._cli.exit_codes import exit_on_errors
from llama._cli.mitm.command import mitm_command
from llama._cli.stacks import Web

EPILOG = "A TIME is 10, 10s, 500ms, 5m, 1h or off."


def _version() -> str:
    try:
        return importlib.metadata.version("proxy-llama")
    except importlib.metadata.PackageNotFoundError:
        return "in a source tree"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(_version(), prog_name="llama")
def main() -> None:
    """Ready-made proxies. Listens on localhost by default.

    For anything beyond these options, compose layers in a few lines of Python.

    Exit codes: 0 success, 1 a failure such as an address in use, 2 an invalid command line,
    78 an invalid configuration.
    """


@main.command("socks5", epilog=EPILOG)
@common.listener_options("localhost:1080")
@common.access_options
@common.socks
@common.upstream_options
def socks5_command(**options: object) -> None:
    """A SOCKS5 proxy for TCP and, with --udp, for UDP.

    \b
    llama socks5 --listen :1080 --user john:secret --udp
    """
    given = CommonOptions.of(options)
    _run(given, lambda: stacks.socks5_server(given))


@main.command("http-proxy", epilog=EPILOG)
@common.listener_options("localhost:8080")
@common.access_options
@common.upstream_options
@common.client_options
def http_proxy_command(**options: object) -> None:
    """An HTTP forward proxy, for CONNECT and for requests with a whole URL.

    \b
    llama http-proxy --listen 127.0.0.1:8080 --via socks5h://127.0.0.1:9050 --access-log
    """
    given = CommonOptions.of(options)
    _run(given, lambda: stacks.http_proxy(given))


@main.command("reverse", epilog=EPILOG)
@click.option(
    "--to",
    metavar="URL",
    multiple=True,
    required=True,
    help="http://HOST:PORT, https://, h2c:// or h3://HOST:PORT, or unix:PATH. With several, they take turns.",
)
@common.HOST_HEADER
@common.TO_CERT
@common.TO_KEY
@common.KEYLOG
@common.listener_options("localhost:8080")
@common.upstream_options
@common.client_options
def reverse_command(to: tuple[str, ...], host_header: str | None, **options: object) -> None:
    """An HTTP reverse proxy.

    \b
    llama reverse --listen :443 --cert cert.pem --key key.pem --to http://127.0.0.1:8000
    llama reverse --listen :443 --cert cert.pem --http3 --to h3://10.0.0.1:443
    """
    given = CommonOptions.of(options)
    _run(given, lambda: stacks.reverse_proxy(given, to, host_header))


@main.command("forward", epilog=EPILOG)
@click.option(
    "--to", metavar="HOST:PORT", type=param_types.target, required=True, help="HOST:PORT or unix:PATH."
)
@common.listener_options("localhost:8080")
@common.upstream_options
def forward_command(to: Target, **options: object) -> None:
    """Carry every connection to one target, bytes untouched.

    \b
    llama forward --listen :5432 --to db.example:5432 --via https://proxy.example
    """
    given = CommonOptions.of(options)
    _run(given, lambda: stacks.forward(given, to))


@main.command("echo", epilog=EPILOG)
@common.listener_options("localhost:7007")
def echo_command(**options: object) -> None:
    """Give back to clients what they send.

    \b
    llama echo --listen 127.0.0.1:7007
    """
    given = CommonOptions.of(options)
    _run(given, lambda: stacks.echo(given))


@main.command("static", epilog=EPILOG)
@click.argument("folder", metavar="DIR")
@click.option(
    "--index",
    metavar="NAME",
    default="index.html",
    show_default=True,
    help="The file for a path that ends in a slash, or off.",
)
@click.option("--listing", is_flag=True, help="Show what is in a directory that has no such file.")
@click.option("--cache-control", metavar="TEXT", help="The Cache-Control field, such as max-age=3600.")
@click.option(
    "--dotfiles", is_flag=True, help="Serve files and directories whose names begin with a dot too."
)
@click.option("--compress", is_flag=True, help="Compress text for the clients that take it.")
@common.listener_options("localhost:8080")
@common.http_options
def static_command(
    folder: str,
    index: str,
    listing: bool,
    cache_control: str | None,
    dotfiles: bool,
    compress: bool,
    **options: object,
) -> None:
    """Serve the files below a directory over HTTP.

    \b
    llama static --listen :8080 --listing public
    """
    given = CommonOptions.of(options)
    chosen = stacks.StaticOptions(
        index=None if index == "off" else index,
        listing=listing,
        cache_control=cache_control,
        dotfiles=dotfiles,
        compress=compress,
    )
    _run(given, lambda: stacks.static(given, folder, chosen))


main.add_command(mitm_command)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
def completion(shell: str) -> None:
    """Print a script that completes llama's options: eval "$(llama completion bash)"."""
    if (kind := get_completion_class(shell)) is not None:
        click.echo(kind(main, {}, "llama", "_LLAMA_COMPLETE").source())


def _run(given: CommonOptions, build: Callable[[], ConnectionHandler | Web]) -> None:
    logs.set_up()
    with exit_on_errors():
        run(lambda: stacks.servers(given, build()), workers=given.workers, grace=given.grace)
