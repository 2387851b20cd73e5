"""The proxy's own pages: the error page of a failed upstream, and how to trust the CA."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import ClassVar

from llama._core.errors import LlamaError
from llama.http import Request, RequestHandler, Response
from llama.tls import CertificateAuthority

PORTAL_HOST = "llama.internal"

_SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}
pre,code{{background:#8882;padding:.1em .3em}}pre{{padding:.7em;overflow:auto}}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""

_TRUST = """<p>Programs accept this proxy's certificates once they trust its CA certificate,
<code>{name}</code>, SHA-256 <code>{fingerprint}</code>:</p>
<ul><li><a href="/ca.pem">ca.pem</a> (most programs)</li>
<li><a href="/ca.cer">ca.cer</a> (DER: Windows, Android)</li>
<li><a href="/ca.p12">ca.p12</a> (PKCS#12)</li></ul>
<h2>One program</h2>
<pre>curl --cacert ca.pem ...
export SSL_CERT_FILE=ca.pem REQUESTS_CA_BUNDLE=ca.pem CURL_CA_BUNDLE=ca.pem
export NODE_EXTRA_CA_CERTS=ca.pem GIT_SSL_CAINFO=ca.pem PIP_CERT=ca.pem</pre>
<h2>Debian, Ubuntu</h2>
<pre>sudo cp ca.pem /usr/local/share/ca-certificates/llama.crt
sudo update-ca-certificates</pre>
<h2>Fedora, RHEL</h2>
<pre>sudo cp ca.pem /etc/pki/ca-trust/source/anchors/llama.pem
sudo update-ca-trust</pre>
<h2>Chromium on Linux</h2>
<pre>certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n llama -i ca.pem</pre>
<h2>Firefox</h2>
<p>Settings, Privacy &amp; Security, View Certificates, Authorities, Import: ca.pem, trust it for websites.</p>
<h2>macOS</h2>
<pre>sudo security add-trusted-cert -d -p ssl -p basic -k /Library/Keychains/System.keychain ca.pem</pre>
<h2>Windows</h2>
<pre>certutil -addstore root ca.cer</pre>
<h2>iOS</h2>
<p>Open ca.pem in Safari, install the profile in Settings, then switch it on in General, About, Certificate Trust
Settings.</p>
<h2>Android</h2>
<p>Settings, Security, Encryption &amp; credentials, Install a certificate, CA certificate: ca.cer. Apps trust it only
if their network security configuration trusts user CAs.</p>
<p>Anyone who has the private key of this CA can impersonate any server to these programs. Remove the certificate
from their trust stores when you no longer need it.</p>
"""


def error_page(error: BaseException, status: int, request: Request | None) -> Response:
    """Make an error page with the status, its phrase and the error message, as HTML for browsers, else as text."""
    name = HTTPStatus(status).phrase if status in _KNOWN else "Error"
    reason = str(error) if isinstance(error, LlamaError | OSError) else ""
    if request is not None and "html" in request.headers.get("accept", ""):
        html = f"<p>{escape(reason)}</p>\n<p>This page was sent by the proxy, llama.</p>" if reason else ""
        return _page(f"{status} {name}", html, status)
    text = f"{status} {name}{': ' + reason if reason else ''}\n"
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode(errors="replace"))


_KNOWN = {status.value for status in HTTPStatus}


def _page(title: str, body: str, status: int = 200) -> Response:
    text = _SHELL.format(title=escape(title), body=body)
    headers = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
    return Response(status, headers, text)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class CertificatePortal:
    """Answers requests for the magic host; passes all others on."""

    inner: RequestHandler
    authority: CertificateAuthority
    host: str

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.page({self.host})"

    def is_for(self, request: Request) -> bool:
        """Whether a request is for the magic host."""
        return request.hostname == self.host

    async def __call__(self, request: Request, /) -> Response:
        return self.answer(request) if self.is_for(request) else await self.inner(request)

    def answer(self, request: Request) -> Response:
        """Return the page, or the certificate in one of its formats."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, {"Allow": "GET, HEAD"})
        path = request.normalized_path
        authority = self.authority
        if path == "/":
            certificate = authority.certificate
            return _page(
                "Trust this proxy",
                _TRUST.format(
                    name=escape(certificate.subject.rfc4514_string()), fingerprint=authority.fingerprint
                ),
            )
        if path == "/ca.pem":
            return _file("application/x-x509-ca-cert", "ca.pem", authority.pem)
        if path == "/ca.cer":
            return _file("application/x-x509-ca-cert", "ca.cer", authority.der)
        if path == "/ca.p12":
            return _file("application/x-pkcs12", "ca.p12", authority.pkcs12())
        return error_page(LlamaError("not found: expected /, /ca.pem, /ca.cer or /ca.p12"), 404, request)


def _file(kind: str, name: str, data: bytes) -> Response:
    return Response(
        200, {"Content-Type": kind, "Content-Disposition": f'attachment; filename="{name}"'}, data
    )
