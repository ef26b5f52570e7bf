"""The same cached file served by this server, nbdkit, qemu-nbd and nbd-server, over Unix sockets.

The client is fio. "the limit" is a C program that shows how fast this machine can be: a thread for
each connection, one recv, one pread for each request, one send for all replies, and nothing else.
Ratios are to the best of the other servers; other builds of this server and the limit do not count.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import time

from measuring import (
    HERE, OURS, Client, alternate, builds, chosen, fio, head, make_image, ratio, row, started)

NEEDS = ["fio"]
LIMIT = "the limit"

# The way in which the image is read into the page cache decides the size of the kernel's folios. For
# a write of 4 KiB ext4 looks through the whole folio, which takes 1 us for a folio of 4 KiB and 15 us
# or more for one of 1 MiB, whichever server writes.
BY_PAGES = 4096
BY_LARGE_READS = 1 << 20

# name, fio's rw, block size, connections, depth, size of the reads into the page cache
CASES = [
    ("4 KiB random reads, 1 x 1", "randread", "4k", 1, 1, BY_LARGE_READS),
    ("4 KiB random reads, 1 x 32", "randread", "4k", 1, 32, BY_LARGE_READS),
    ("4 KiB random reads, 4 x 8", "randread", "4k", 4, 8, BY_LARGE_READS),
    ("4 KiB random reads, 16 x 4", "randread", "4k", 16, 4, BY_LARGE_READS),
    ("4 KiB random writes, 4 x 8", "randwrite", "4k", 4, 8, BY_PAGES),
    ("4 KiB random writes into large folios, 4 x 8", "randwrite", "4k", 4, 8, BY_LARGE_READS),
    ("256 KiB sequential reads, 1 x 8", "read", "256k", 1, 8, BY_LARGE_READS),
    ("256 KiB sequential writes, 1 x 8", "write", "256k", 1, 8, BY_LARGE_READS),
]


def add_options(parser):
    parser.add_argument("--file-size", type=int, default=1024, help="of the image, in MiB (1024)")
    parser.add_argument("--idle", type=int, default=1000, help="idle connections (1000; 0: none)")


def found_servers(image, directory, jars):
    """Returns the servers that are installed: name -> command for a socket."""
    # All of them use the same file at the same time.
    commands = {
        name: lambda s, jar=jar: ["java", "-jar", jar, "serve", "--force-share", "-U", s, image]
        for name, jar in jars.items()}
    if shutil.which("nbdkit"):
        commands["nbdkit"] = lambda s: ["nbdkit", "-f", "-U", s, "file", image]
    if shutil.which("qemu-nbd"):
        commands["qemu-nbd"] = lambda s: [
            "qemu-nbd", "-f", "raw", "-t", "-e", "16", "--cache=writeback", "-k", s, image]
    if shutil.which("nbd-server"):
        def nbd_server(s):
            with socket.socket() as free:  # nbd-server needs a TCP port too
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            config = directory / "nbd-server.conf"
            config.write_text(
                f"[generic]\nunixsock = {s}\nlistenaddr = 127.0.0.1\nport = {port}\nallowlist = true\n"
                f"[default]\nexportname = {image}\n")
            return ["nbd-server", "-C", config, "-p", directory / "nbd-server.pid"]
        commands["nbd-server"] = nbd_server
    if shutil.which("cc"):
        program = directory / "limit"
        subprocess.check_call(["cc", "-O2", "-pthread", "-o", program, HERE / "limit.c"])
        commands[LIMIT] = lambda s: [str(program), s, image]
    return commands


def fill_cache(image, step):
    """Drops the image from the page cache, and reads it again in steps of so many bytes."""
    file = os.open(image, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    if step == BY_PAGES:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # read-ahead makes large folios
    while os.read(file, step):
        pass
    os.close(file)


def idle_connections(server, count):
    """Measures the resident bytes of a connection that has read a little and then idles."""
    before = server.resident_bytes()
    clients = []
    for _ in range(count):
        client = Client(server.socket)
        client.read(4096)
        clients.append(client)
    time.sleep(1)
    after = server.resident_bytes()
    for client in clients:
        client.socket.close()
    return (after - before) / count


def run(arguments, directory: pathlib.Path):
    image = directory / "disk.img"
    make_image(image, arguments.file_size)
    ours = builds(arguments)
    commands = found_servers(image, directory, ours)
    print("servers:", ", ".join(commands), flush=True)
    with started(commands, directory) as servers:
        # Only nbd-server's export has a name.
        uris = {name: server.uri.replace("///", "///default") if name == "nbd-server"
                else server.uri for name, server in servers.items()}
        for name in ours:  # until the JIT compiler is done
            for rw in "randread", "randwrite":
                fio(servers[name], uris[name], rw, "4k", 4, 8, 5)
        print()
        head("case", "server", ">requests/s", ">ratio", ">p99 us", ">ratio", ">p99.9 us", ">max us",
             ">CPU us/request", ">ratio")
        for title, rw, block_size, connections, depth, cached in CASES:
            if not chosen(title, arguments):
                continue
            fill_cache(image, cached)
            medians = alternate(servers, arguments.rounds, lambda name: fio(
                servers[name], uris[name], rw, block_size, connections, depth, arguments.seconds))
            peers = [result for name, result in medians.items() if name not in (*ours, LIMIT)]
            best = {key: choose((peer[key] for peer in peers), default=0)
                    for key, choose in (("rate", max), ("p99", min), ("cpu", min))}
            for name, result in medians.items():
                row(title if name == OURS else "", name,
                    f"{result['rate']:,.0f}", ratio(result["rate"], best["rate"]),
                    f"{result['p99']:,.0f}", ratio(result["p99"], best["p99"]),
                    f"{result['p99.9']:,.0f}", f"{result['max']:,.0f}",
                    f"{result['cpu']:.1f}", ratio(result["cpu"], best["cpu"]))
        if arguments.idle:
            each = idle_connections(servers[OURS], arguments.idle)
            print(f"\n{arguments.idle} idle connections: {each / 1024:.1f} KiB each")
