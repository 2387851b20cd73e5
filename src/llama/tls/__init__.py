"""TLS: termination, client connections, routing without termination, certificates."""

from llama.tls._certificates.authority import CertificateAuthority
from llama.tls._certificates.files import Certificate
from llama.tls._certificates.key_pair import KeyPair
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._client_hello.peek import peek_hello
from llama.tls._connect import TLSParams, connect
from llama.tls._info import TLSInfo
from llama.tls._middleware import allow, deny, require_sni
from llama.tls._proxy_tlvs import proxy_tlvs
from llama.tls._route import route
from llama.tls._server import server

__all__ = [
    "Certificate",
    "CertificateAuthority",
    "ClientHello",
    "KeyPair",
    "TLSInfo",
    "TLSParams",
    "allow",
    "connect",
    "deny",
    "peek_hello",
    "proxy_tlvs",
    "require_sni",
    "route",
    "server",
]
