"""`mitm_door.py LISTEN TARGET AUTHORITY`: a port that leads to one target, looked into with one hook."""

import sys

from benchmarks.servers.mitm import seen
from llama import mitm, run, tcp

if __name__ == "__main__":
    relay = mitm.relay(mitm.CertificateAuthority.create(), seen, verify=sys.argv[3])
    run(tcp.forward(sys.argv[2], relay=relay), listen=sys.argv[1])
