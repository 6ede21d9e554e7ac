"""A real nginx in front of a searcher, which it serves below the path /photos."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs import PAUSE_SECONDS, free_port

PREFIX = "/photos"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
REMOVE = """
      proxy_pass {upstream}/;
      proxy_set_header X-Forwarded-Prefix /photos;"""
KEEP = """
      proxy_pass {upstream};"""
CLEAR = """
      proxy_pass {upstream}/;
      proxy_set_header X-Forwarded-Prefix "";"""
CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      return 418;
    }}
    location /photos/ {{{path}
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: str, path: str) -> Iterator[str]:
    """The URL of the searcher behind nginx. `path`: REMOVE or KEEP the prefix, or CLEAR the header
    that names it. Every other path gets 418."""
    if NGINX is None:
        pytest.skip("nginx is missing; on Debian and Ubuntu: apt-get install nginx-light")
    folder.mkdir()
    port = free_port()
    configuration = CONFIGURATION.format(
        folder=folder,
        port=port,
        path=path.format(upstream=upstream),
        user="user root;" if os.geteuid() == 0 else "",  # other users cannot write below pytest's folder
    )
    (folder / "nginx.conf").write_text(configuration)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-e", "stderr"], stdout=log, stderr=log)
    try:
        while not _listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(PAUSE_SECONDS)
        yield f"http://127.0.0.1:{port}{PREFIX}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
