"""The command `pango`."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from llama import ConfigError, Server, run
from pango import _build, _demo, _logs, _options
from pango._certificate_info import CertificateInfo
from pango._check_report import report
from pango._settings import ConfigErrors, Settings

log = logging.getLogger("pango")
FAILED = 1
CONFIG = 78  # EX_CONFIG of sysexits.h


def _version() -> str:
    try:
        return importlib.metadata.version("proxy-llama")
    except importlib.metadata.PackageNotFoundError:
        return "in a source tree"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(_version(), prog_name="pango")
def main() -> None:
    """A TLS reverse proxy: it terminates TLS and forwards the bytes untouched, or the requests.

    Exit codes: 0 success, 1 a failure such as an address in use, 2 an invalid command line,
    78 an invalid configuration.
    """


@main.command(
    epilog="A TIME is 10, 10s, 500ms, 5m, 1h or off. SIGHUP reads all files again; no connection is lost."
)
@_options.options
@click.option(
    "--check", is_flag=True, help="Validate the configuration, report every error at once, and exit."
)
def serve(check: bool, **given: object) -> None:
    """Accept TLS connections and forward their contents.

    \b
    pango serve --listen :8443 --cert c.pem --key k.pem --to 127.0.0.1:8080
    pango serve --listen :443 --cert c.pem --key k.pem --to http://127.0.0.1:8000 --access-log
    """
    problems = ConfigErrors(_options.display_name)
    style, level = _options.read_logging(given, problems)
    settings = _options.read(given, problems)
    servers, certificates = _prepare(settings, problems)
    if check:
        click.echo(report(settings, servers, certificates))
        return
    _logs.set_up(style, level)
    for each in certificates:
        if each.needs_attention:
            log.warning("certificate %s", each)
    _run(settings)


def _prepare(settings: Settings, problems: ConfigErrors) -> tuple[list[Server], list[CertificateInfo]]:
    """The servers of settings that are right; says all that is wrong and ends otherwise."""
    certificates = _build.preflight(settings, problems)
    try:
        problems.check()
        return _build.servers(settings), certificates
    except ConfigError as error:
        _fail(CONFIG, *str(error).splitlines())


def _run(settings: Settings) -> None:
    def servers() -> list[Server]:
        problems = ConfigErrors(_options.display_name)
        _build.preflight(settings, problems)
        problems.check()
        return _build.servers(settings)

    try:
        run(servers, workers=settings.workers, grace=settings.grace)
    except ConfigError as error:
        _fail(CONFIG, *str(error).splitlines())
    except OSError as error:
        text = error.strerror or str(error)
        _fail(FAILED, f"--listen: {text}" if text.startswith("cannot listen") else text)


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        click.echo(f"pango: {line}", err=True)
    sys.exit(code)


@main.command()
@click.option("--port", metavar="PORT", type=click.IntRange(1, 65535), default=8443, show_default=True)
def demo(port: int) -> None:
    """Serve a small web page over TLS, on this machine only, at the first free port from PORT up.

    Makes a throw-away authority and a certificate, and removes them at the end.
    """
    _logs.set_up(level="warning")
    try:
        _demo.demo(port)
    except OSError as error:
        _fail(FAILED, error.strerror or str(error))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
def completion(shell: str) -> None:
    """Print a script that completes pango's options: eval "$(pango completion bash)"."""
    if (kind := get_completion_class(shell)) is not None:
        click.echo(kind(main, {}, "pango", "_PANGO_COMPLETE").source())
