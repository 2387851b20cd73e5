"""nginx, the service behind pango."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/nginx-temp;
  proxy_temp_path {folder}/nginx-temp2;
  fastcgi_temp_path {folder}/nginx-temp3;
  uwsgi_temp_path {folder}/nginx-temp4;
  scgi_temp_path {folder}/nginx-temp5;
  server {{
    listen unix:{folder}/web;
    root {folder}/www;
    location / {{ dav_methods PUT; }}
    location = /hello {{ return 200 "hello from nginx\\n"; }}
  }}
  server {{
    listen unix:{folder}/proxied proxy_protocol;
    location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_server_port\\n"; }}
  }}
}}
"""


class Nginx:
    """`web` and `proxied` are its addresses, the second expects a PROXY header; `www` holds its files."""

    def __init__(self, folder: Path) -> None:
        self.www = folder / "www"
        self.www.mkdir()
        self.web, self.proxied = f"unix:{folder}/web", f"unix:{folder}/proxied"
        user = "user root;" if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, user=user))
        self._errors = (folder / "nginx.log").open("wb")
        self._process = subprocess.Popen(
            ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)], stderr=self._errors
        )
        self._wait(folder / "web")

    def _wait(self, path: Path, patience: float = 20) -> None:
        deadline = time.monotonic() + patience
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if not probe.connect_ex(str(path)):
                    return
            assert self._process.poll() is None and time.monotonic() < deadline, "nginx does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._errors.close()
