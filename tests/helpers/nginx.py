"""nginx with the documented configuration, before replicas of the service, on a port of its own."""

import contextlib
import os
import re
import socket
import subprocess
import time
from pathlib import Path

CONF = Path(__file__).parents[2] / "hosts/nginx/replicas.conf"
MAIN = """
daemon off;
{user}
pid {folder}/pid;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/replies;
    fastcgi_temp_path {folder}/1;
    uwsgi_temp_path {folder}/2;
    scgi_temp_path {folder}/3;
    include {folder}/replicas.conf;
}}
"""

USER = "user root;" if os.geteuid() == 0 else ""  # its workers would not be allowed into the folder


class Nginx:
    """Use as a context manager.

    Args:
        ports: of the replicas.
        plain: every failure is passed on to the client.
    """

    def __init__(self, folder: Path, ports: list[int], *, plain: bool = False) -> None:
        self.port = free_port()
        text = CONF.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        servers = re.findall(r"^ *server 127\.0\.0\.1:\d+ .*\n", text, re.MULTILINE)
        for line in servers[1:]:
            text = text.replace(line, "")
        text = text.replace(servers[0], "".join(servers[0].replace("8001", str(port)) for port in ports))
        if plain:
            text = re.sub(r"proxy_next_upstream .*;", "proxy_next_upstream off;", text)
        (folder / "replicas.conf").write_text(text)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=USER))
        self.errors = folder / "errors"
        self.process = subprocess.Popen(["nginx", "-e", str(self.errors), "-c", str(folder / "nginx.conf")])

    def __enter__(self):
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.05)
        raise AssertionError(self.errors.read_text())

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
