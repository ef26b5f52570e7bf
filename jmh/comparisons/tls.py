"""Copies over TLS, compared with nbdkit with GnuTLS.

nbdcopy reads the same cached file from each server in turn, over a Unix socket and over TCP, with 4
connections and requests of 256 KiB, for each cipher. The certificates are those of the tests.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time

from measuring import (
    HERE, OURS, alternate, builds, chosen, client_prefix, head, make_image, ratio, row, started)

NEEDS = ["nbdcopy", "nbdkit"]
CERTIFICATES = HERE.parent.parent / "app" / "src" / "test" / "resources" / "tls" / "good"

# The ciphers that the client must not offer, so that every server chooses the one in the name.
CIPHERS = {
    "no TLS": None,
    "AES-256-GCM": ["chacha20-poly1305", "aes-128-gcm", "aes-128-ccm"],
    "CHACHA20-POLY1305": ["aes-256-gcm", "aes-128-gcm", "aes-128-ccm"],
}


def add_options(parser):
    parser.add_argument("--file-size", type=int, default=1024, help="of the image, in MiB (1024)")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def commands(arguments, image, tls, port):
    """Returns servers of an image on a port, or else a socket: name -> command for a socket."""
    options = ["--tls=require", f"--tls-certificates={CERTIFICATES}"] if tls else []

    def where(path):
        return ["-i", "127.0.0.1", "-p", str(port)] if port else ["-U", path]
    found = {name: lambda s, jar=jar: ["java", "-jar", jar, "serve", "-r", *where(s), *options, image]
             for name, jar in builds(arguments).items()}
    found["nbdkit"] = lambda s: ["nbdkit", "-f", "-r", *where(s), *options, "file", image]
    return found


def copied(server, uri, size, environment):
    """Measures MiB per second, and the server's processor time for each GiB, in seconds."""
    before = server.cpu_seconds()
    began = time.monotonic()
    run = subprocess.run(
        [*client_prefix, "nbdcopy", "--connections=4", "--request-size=262144", uri, "null:"],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.monotonic() - began
    if run.returncode != 0:
        sys.exit(f"nbdcopy failed: {run.stderr.decode()}")
    return {"rate": size / took / (1 << 20),
            "cpu": (server.cpu_seconds() - before) / size * (1 << 30)}


def measure(arguments, directory, image, transport, cipher):
    disabled = CIPHERS[cipher]
    environment = dict(os.environ)
    if disabled:
        rules = directory / "gnutls.conf"
        rules.write_text("[overrides]\n" + "".join(f"tls-disabled-cipher = {d}\n" for d in disabled))
        environment["GNUTLS_SYSTEM_PRIORITY_FILE"] = str(rules)
    size = os.path.getsize(image)
    scheme, query = ("nbds", f"tls-certificates={CERTIFICATES}") if disabled else ("nbd", "")
    servers, uris = {}, {}
    with contextlib.ExitStack() as stack:
        for name in commands(arguments, image, disabled, 0):
            port = free_port() if transport == "TCP" else 0
            command = commands(arguments, image, disabled, port)[name]
            address = ("127.0.0.1", port) if port else None
            servers |= stack.enter_context(started({name: command}, directory, address))
            uris[name] = (f"{scheme}://localhost:{port}/?{query}" if port else
                          f"{scheme}+unix://localhost/?socket={servers[name].socket}&{query}")
            uris[name] = uris[name].rstrip("?&")
        for name, server in servers.items():
            for _ in range(12 if server.ours else 0):  # until the JIT compiler is done
                copied(server, uris[name], size, environment)
        medians = alternate(servers, arguments.rounds, lambda name: copied(
            servers[name], uris[name], size, environment))
    for name, result in medians.items():
        row(f"{transport}, {cipher}" if name == OURS else "", name, f"{result['rate']:,.0f}",
            ratio(result["rate"], medians["nbdkit"]["rate"]), f"{result['cpu']:.2f}")


def run(arguments, directory):
    image = directory / "disk.img"
    make_image(image, arguments.file_size)
    head("nbdcopy, 4 connections, 256 KiB", "server", ">MiB/s", ">ratio", ">CPU s/GiB")
    for cipher in CIPHERS:
        for transport in "Unix", "TCP":
            if chosen(f"{transport}, {cipher}", arguments):
                measure(arguments, directory, image, transport, cipher)
