"""The memory of this server, and the time that it takes to start.

Resident memory of its processes: before the first connection, with idle connections that have read
4 KiB each, after they have left, and after many short connections. "launcher" is the JVM that the
jar was started with, where a second one of Java 25 serves.
"""

import resource
import statistics
import subprocess
import sys
import threading
import time

from measuring import OURS, Client, builds, head, make_image, row, started

NEEDS = []
MIB = 1 << 20

# Longer than the server waits before it takes a burst for over.
SETTLING = 20


def add_options(parser):
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (10000)")
    parser.add_argument("--short", type=int, default=160_000, help="short connections (160000)")


def connected(server):
    client = Client(server.socket)
    client.read(4096)
    return client


def short_connections(server, count):
    for _ in range(count):
        connected(server).socket.close()


def start_milliseconds(jar, image):
    """Measures the time from the start to the ready line."""
    began = time.monotonic()
    command = ["java", "-jar", str(jar), "serve", "--force-share", "-U", "-", str(image)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        took = time.monotonic() - began
        process.terminate()
    return took * 1000


def run(arguments, directory):
    enough = arguments.idle + 100
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < enough:
        sys.exit(f"too few file descriptors; run ulimit -n {enough} first")
    image = directory / "disk.img"
    make_image(image, 16)
    head("build", "moment", ">server MiB", ">launcher MiB")
    for name, jar in builds(arguments).items():
        def show(server, moment):
            pids = server.processes()
            each = [server.resident_bytes([pid]) / MIB for pid in pids]
            launcher = f"{each[0]:.0f}" if len(each) > 1 else ""
            row(name if moment == "ready" else "", moment, f"{each[-1]:.0f}", launcher)

        command = ["java", "-jar", jar, "serve", "--force-share", "-U"]
        with started({OURS: lambda s: [*command, s, image]}, directory) as servers:
            server = servers[OURS]
            time.sleep(SETTLING)
            show(server, "ready")
            clients = [connected(server) for _ in range(arguments.idle)]
            time.sleep(SETTLING)
            show(server, f"{arguments.idle:,} idle connections")
            for client in clients:
                client.socket.close()
            time.sleep(SETTLING)
            show(server, "they have left")
            threads = [threading.Thread(target=short_connections, args=(server, arguments.short // 4))
                       for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(SETTLING)
            show(server, f"after {arguments.short:,} short ones")
        starts = [start_milliseconds(jar, image) for _ in range(max(arguments.rounds, 3))]
        row("", f"start to ready: {statistics.median(starts):.0f} ms", "", "")
