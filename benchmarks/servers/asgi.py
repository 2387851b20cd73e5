"""`asgi.py LISTEN`: the small ASGI application in a stack."""

import sys

from benchmarks.servers.app import app
from llama import asgi, http, run, stack

if __name__ == "__main__":
    run(stack(http.server(), asgi(app)), listen=sys.argv[1])
