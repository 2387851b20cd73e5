"""The options of `llama mitm`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, cast

import click

from llama import Middleware
from llama._cli import common_options as common
from llama._cli import param_types
from llama._cli.common_options import CommonOptions
from llama._cli.mitm import param_types as values
from llama.http import Request, Response

F = TypeVar("F", bound=Callable[..., object])
Lines: TypeAlias = Literal["short", "common", "combined", "json", "off"]
Mode: TypeAlias = Literal["http", "socks5", "forward", "transparent", "tproxy"]
PATTERN = (
    "HOST, *.DOMAIN or NETWORK, each with an optional :PORT, sni=NAME for the server name in the TLS ClientHello, "
    "client=NETWORK for the client's address. Parts separated by commas must all match."
)

LISTEN = click.option(
    "--listen",
    metavar="ADDRESS",
    type=param_types.listen,
    multiple=True,
    help="HOST:PORT, :PORT for every address, PORT for this machine only, unix:PATH or fd:NUMBER. Repeatable.  "
    "[default: 127.0.0.1:8080, and a free port of 127.0.0.1 before a command]",
)
MODE = click.option(
    "--mode",
    type=click.Choice(["http", "socks5", "forward", "transparent", "tproxy"]),
    default="http",
    show_default=True,
    help="How clients reach the proxy: as an HTTP proxy, a SOCKS5 proxy, in front of one target (--to), or "
    "through Linux's REDIRECT or TPROXY.",
)
TO = click.option(
    "--to",
    metavar="TARGET",
    type=values.FixedTarget.parse,
    help="The target of --mode forward: https://HOST[:PORT] or http://HOST[:PORT], over TLS or in the clear for "
    "clients of both kinds, or HOST:PORT or unix:PATH, reached as each client connects.",
)
CA = click.option(
    "--ca",
    metavar="DIR",
    envvar="LLAMA_CA",
    help="Directory of the certificate authority, created on first use.  "
    "[default: in your data directory; env: LLAMA_CA]",
)
INTERCEPT = click.option(
    "--intercept",
    metavar="PATTERN",
    type=values.Pattern.parse,
    multiple=True,
    help=f"Intercept only these connections and pass the others through: {PATTERN} Repeatable.",
)
PASSTHROUGH = click.option(
    "--passthrough",
    metavar="PATTERN",
    type=values.Pattern.parse,
    multiple=True,
    help="Pass these connections through unchanged. Overrides --intercept. Repeatable.",
)
BLOCK = click.option(
    "--block",
    metavar="PATTERN",
    type=values.Pattern.parse,
    multiple=True,
    help="Refuse these connections. Overrides all other rules. Repeatable.",
)
PIN_AFTER = click.option(
    "--pin-after",
    metavar="N",
    type=click.IntRange(1),
    help="Treat a client as pinning after N rejected certificates in a row for a host.",
)
PIN_FOR = click.option(
    "--pin-for",
    metavar="TIME",
    type=values.span,
    help="How long to remember a pinning client; SIGHUP forgets it.  [default: 1h]",
)
PINNED_ACTION = click.option(
    "--pinned-action",
    type=click.Choice(["passthrough", "block"]),
    help="Action for pinning clients.  [default: passthrough]",
)
INSECURE = click.option("--insecure", is_flag=True, help="Do not verify the certificates of upstreams.")
PASS_UNTRUSTED = click.option(
    "--pass-untrusted",
    is_flag=True,
    help="Pass clients through to upstreams whose TLS handshake fails, instead of serving a page with the reason.",
)
UPSTREAM_CA = click.option(
    "--upstream-ca",
    metavar="FILE",
    help="Certificate authorities to trust for upstreams, instead of the system's.",
)
UPSTREAM_CERT = click.option(
    "--upstream-cert",
    metavar="FILE",
    help="Send this client certificate with its chain (PEM) to upstreams that ask for one.",
)
UPSTREAM_KEY = click.option(
    "--upstream-key", metavar="FILE", help="Its private key, if it is not in the same file."
)
REVOKE = click.option(
    "--revoke",
    metavar="SHA256",
    type=values.fingerprint,
    multiple=True,
    help="Refuse upstreams with this certificate. Repeatable.",
)
LAZY_UPSTREAM = click.option(
    "--lazy-upstream",
    is_flag=True,
    help="Connect to upstreams only when a request needs it; certificates then carry only the requested name.",
)
SERVER_FIRST_TIMEOUT = click.option(
    "--server-first-timeout",
    metavar="TIME",
    type=param_types.seconds,
    help="Relay a connection whose client sends nothing for this time, for protocols in which the server speaks first, "
    "such as SMTP.",
)
HAR = click.option(
    "--har",
    metavar="FILE",
    help="Record exchanges to this HAR 1.2 file, which is complete after each exchange.",
)
HAR_LIMIT = click.option(
    "--har-limit",
    metavar="SIZE",
    type=values.size,
    help="Maximum recorded size of each body, such as 10M. Bodies over 1M go to files beside the HAR.",
)
REPLAY = click.option(
    "--replay",
    metavar="FILE",
    multiple=True,
    help="Answer requests from the recordings in this HAR file. Repeatable.",
)
REPLAY_STRICT = click.option(
    "--replay-strict",
    is_flag=True,
    help="Answer other requests, and repeats beyond the recorded ones, with 502; reach no upstream.",
)
REPLAY_REPEAT = click.option(
    "--replay-repeat",
    is_flag=True,
    help="With --replay-strict, replay the last recorded answer to a request again.",
)
MAP_LOCAL = click.option(
    "--map-local",
    metavar="URL=PATH",
    type=values.pair,
    multiple=True,
    help="Answer requests whose URL begins with URL from a file or a directory. Repeatable.",
)
MAP_REMOTE = click.option(
    "--map-remote",
    metavar="URL=URL",
    type=values.pair,
    multiple=True,
    help="Send requests whose URL begins with the first URL to the second. Repeatable.",
)
THROTTLE = click.option(
    "--throttle",
    metavar="RATE",
    type=values.rate,
    help="Limit each body and each WebSocket to this many bytes per second, such as 64K.",
)
FAULTS = click.option(
    "--faults",
    metavar="LIST",
    type=values.faults,
    help="Inject faults, separated by commas: latency=200ms-1s, errors=0.1 (the fraction answered with status=503), "
    "aborts=0.1 (the fraction cut off after=1000 bytes), seed=1 for a repeatable choice.",
)
SCRIPT = click.option(
    "--script",
    metavar="FILE",
    help="Hooks in Python: a list of layers named layers, on_message, on_open and on_close for WebSockets, on_chunk "
    "for other bytes. Reloaded when it changes; if that fails, the previous version stays in use.",
)
GRACE = click.option(
    "--grace",
    metavar="TIME",
    type=param_types.seconds,
    default="2s",
    show_default=True,
    help="Maximum wait for open connections and requests after SIGTERM, SIGINT or the end of COMMAND.",
)
ACCESS_LOG = click.option(
    "--access-log",
    type=click.Choice(["short", "common", "combined", "json", "off"]),
    is_flag=False,
    flag_value="combined",
    help="Write a line for each exchange to standard output.  [default: short, without a console]",
)
CONSOLE = click.option(
    "--console/--no-console",
    default=None,
    help="Show a live view of the exchanges.  "
    "[default: if standard output is a terminal and the extra inspect is installed]",
)
SUMMARY = click.option(
    "--summary",
    metavar="N",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="List up to N of the exchanges of COMMAND on standard error when it ends.",
)

SECTIONS = (
    ("Listening", (LISTEN, MODE, TO, common.HOST_HEADER, CA, common.CERT, common.KEY, common.USER,
                        common.USER_FILE, common.ALLOW_ANONYMOUS, common.ALLOW_PRIVATE)),
    ("Interception", (INTERCEPT, PASSTHROUGH, BLOCK, PIN_AFTER, PIN_FOR, PINNED_ACTION, SERVER_FIRST_TIMEOUT)),
    ("Upstreams", (common.VIA, UPSTREAM_CA, UPSTREAM_CERT, UPSTREAM_KEY, INSECURE, PASS_UNTRUSTED, REVOKE,
                   LAZY_UPSTREAM)),
    ("Recording and changes", (SCRIPT, HAR, HAR_LIMIT, REPLAY, REPLAY_STRICT, REPLAY_REPEAT, MAP_LOCAL,
                               MAP_REMOTE, THROTTLE, FAULTS)),
    ("Output", (CONSOLE, ACCESS_LOG, SUMMARY, common.KEYLOG)),
    ("Timeouts", (GRACE, common.CONNECT(), common.HANDSHAKE(), common.FIRST_BYTE(), common.IDLE())),
)  # fmt: skip


class Sectioned(click.Command):
    """A command whose help has its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = (each.get_help_record(ctx) for each in self.get_params(ctx))
        rows = [record for record in records if record is not None]
        for title, members in (*SECTIONS, ("Help", ())):
            count = len(members) or len(rows)
            with formatter.section(title):
                formatter.write_dl(rows[:count])
            del rows[:count]


def options(command: F) -> F:
    """All the options."""
    for _, members in reversed(SECTIONS):
        for each in reversed(members):
            command = each(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class MitmOptions:
    """What was given, besides what the other commands know too."""

    mode: Mode
    to: values.FixedTarget | None
    host_header: str | None
    ca: str | None
    intercept: tuple[values.Pattern, ...]
    passthrough: tuple[values.Pattern, ...]
    block: tuple[values.Pattern, ...]
    pin_after: int | None
    pin_for: float | None
    pinned_action: Literal["passthrough", "block"] | None
    insecure: bool
    pass_untrusted: bool
    upstream_ca: str | None
    upstream_cert: str | None
    upstream_key: str | None
    revoke: tuple[str, ...]
    lazy_upstream: bool
    server_first_timeout: float | None
    script: str | None
    har: str | None
    har_limit: int | None
    replay: tuple[str, ...]
    replay_strict: bool
    replay_repeat: bool
    map_local: tuple[tuple[str, str], ...]
    map_remote: tuple[tuple[str, str], ...]
    throttle: float | None
    faults: Middleware[Request, Response] | None
    console: bool | None
    summary: int
    lines: Lines | None


def split(given: Mapping[str, object]) -> tuple[CommonOptions, MitmOptions]:
    """The options that other commands have too, and the others."""
    known = {field.name for field in dataclasses.fields(CommonOptions)}
    shared = {name: value for name, value in given.items() if name in known}
    rest = {name: value for name, value in given.items() if name not in known}
    lines = shared.pop("access_log")
    made = cast("Callable[..., MitmOptions]", MitmOptions)(**rest, lines=lines)
    return CommonOptions.of({**shared, "workers": None, "access_log": None}), made
