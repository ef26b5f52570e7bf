"""This server in front of another one, compared with nbdkit's nbd plugin.

Both stand in front of the same upstream, on the same kind of socket. For reads and writes the
upstream is nbdkit with a RAM disk. For flushes it is this server with --delay-flush=5ms and
--multi-conn-mode=disable, which counts the flushes; nbdkit in front of it has its multi-conn filter
in mode emulate.
"""

import json
import os

from measuring import (
    JAR, OURS, Client, Server, alternate, builds, chosen, fio, head, ratio, row, started)

NEEDS = ["fio", "nbdkit"]

# name, fio's rw, block size, connections, depth
CASES = [
    ("4 KiB random reads, 4 x 8", "randread", "4k", 4, 8),
    ("4 KiB random writes, 4 x 8", "randwrite", "4k", 4, 8),
    ("256 KiB sequential reads, 1 x 8", "read", "256k", 1, 8),
    ("256 KiB sequential writes, 1 x 8", "write", "256k", 1, 8),
]
FLUSH_MILLIS = 5
SHARED = OURS + ", --share-connection"


def add_options(parser):
    parser.add_argument("--connections", type=int, default=16, help="number that flush (16)")
    parser.add_argument("--file-size", type=int, default=512, help="of the image, in MiB (512)")


def proxies(arguments, upstream, *nbdkit_options):
    """Returns the servers in front of an upstream: name -> command for a socket."""
    ours = lambda jar, *options: lambda s: [
        "java", "-jar", jar, "serve", *options, "-U", s, upstream.uri]
    commands = {name: ours(jar) for name, jar in builds(arguments).items()}
    commands[SHARED] = ours(JAR, "--share-connection")
    commands["nbdkit"] = lambda s: [
        "nbdkit", "-f", "-U", s, *nbdkit_options[:1], "nbd", f"socket={upstream.socket}",
        *nbdkit_options[1:]]
    return commands


def plain(arguments, directory, cases):
    ram = {"upstream": lambda s: ["nbdkit", "-f", "-U", s, "memory", f"{arguments.file_size}M"]}
    with started(ram, directory) as upstreams:
        upstream = upstreams["upstream"]
        filling = Client(upstream.socket)
        for megabyte in range(arguments.file_size):
            filling.write(os.urandom(1 << 20), megabyte << 20, False)
        filling.socket.close()
        with started(proxies(arguments, upstream), directory) as servers:
            for server in servers.values():  # until the JIT compiler is done
                for rw in ("randread", "randwrite") if server.ours else ():
                    fio(server, server.uri, rw, "4k", 4, 8, 5)
            head("case", "server", ">requests/s", ">ratio", ">p99 us", ">CPU us/request")
            for title, *case in cases:
                medians = alternate(servers, arguments.rounds, lambda name: fio(
                    servers[name], servers[name].uri, *case, arguments.seconds))
                for name, result in medians.items():
                    row(title if name == OURS else "", name, f"{result['rate']:,.0f}",
                        ratio(result["rate"], medians["nbdkit"]["rate"]),
                        f"{result['p99']:,.0f}", f"{result['cpu']:.1f}")


def flush_rate(arguments, directory, name):
    """Lets every connection write 4 KiB and flush, in turn, while the upstream counts."""
    stats = directory / "stats.json"
    slow = Server("slow upstream", lambda s: [
        "java", "-jar", JAR, "serve", "-U", s, f"--stats={stats}",
        f"--delay-flush={FLUSH_MILLIS}ms", "--multi-conn-mode=disable",
        "--multi-conn-track-dirty=off", "memory:256M"], directory)
    try:
        command = proxies(arguments, slow, "--filter=multi-conn", "multi-conn-mode=emulate")[name]
        with started({name: command}, directory) as servers:
            case = (servers[name], servers[name].uri, "randwrite", "4k", arguments.connections, 1)
            warm = fio(*case, 3, "--fsync=1")
            result = fio(*case, arguments.seconds, "--fsync=1")
    finally:
        slow.stop()
    reached = json.loads(stats.read_text())["client"]["flush"]
    return {
        "rate": result["flushes"] / arguments.seconds,
        "p99": result["flush p99"] / 1000,
        "amplification": reached / (warm["flushes"] + result["flushes"]),
    }


def run(arguments, directory):
    cases = [case for case in CASES if chosen(case[0], arguments)]
    if cases:
        plain(arguments, directory, cases)
    if not chosen("flushes", arguments):
        return
    names = [*builds(arguments), SHARED, "nbdkit"]
    medians = alternate(
        names, arguments.rounds, lambda name: flush_rate(arguments, directory, name))
    print(f"\n{arguments.connections} connections that write and flush, "
          f"upstream flush {FLUSH_MILLIS} ms:\n")
    head("server", ">flushes/s", ">ratio", ">p99 ms", ">upstream flushes for each client flush")
    for name, result in medians.items():
        row(name, f"{result['rate']:,.0f}", ratio(result["rate"], medians["nbdkit"]["rate"]),
            f"{result['p99']:.1f}", f"{result['amplification']:.2f}")
