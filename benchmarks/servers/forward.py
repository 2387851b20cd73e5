"""`forward.py LISTEN TO [CERT KEY]`: forwards connections, out of TLS where a certificate is given."""

import sys

from llama import run, stack, tcp, tls

if __name__ == "__main__":
    forward = tcp.forward(sys.argv[2])
    run(stack(tls.server(sys.argv[3], sys.argv[4]), forward) if sys.argv[3:] else forward, listen=sys.argv[1])
