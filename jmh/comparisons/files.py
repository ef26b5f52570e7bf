"""Cold reads of image files and writes with FUA, compared with nbdkit's file plugin.

On a quick disk, the processors may be the limit. --disk-rate and --disk-iops make a slower disk, like
a cloud's volume: ext4 on a loop device that the kernel slows down (needs root, and version 1 of the
blkio cgroup).

cold: the p99 latency of a connection that reads cached data, alone, and while 16 others read parts of
the same file that are not in the page cache. On a quick disk the others use up the processors; so the
case is also measured with others at a limited rate, and with others that read cached data.

uncached: 4 KiB reads of data that is not in the page cache.

fua: 4 KiB writes with FUA per second on some connections, while another one writes the file from
beginning to end and never flushes; and the same without that writer.

flushes: connections that write 4 KiB and flush, in turn; also by the C program that shows the limit.
"""

import contextlib
import multiprocessing
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time

from measuring import (
    OURS, Client, alternate, builds, chosen, fio, head, make_image, ratio, row, started)
from peers import found_servers

NEEDS = ["fio"]
CACHED = 64 << 20  # the part of the file that stays in the page cache
READERS = 16
UNCACHED = (1, 1), (16, 1), (1, 32), (4, 8)  # connections, depth
FLUSHING = 1, 4, 8, 16  # connections


def commands(arguments, image, *options):
    """Returns the servers that are installed: name -> command for a socket."""
    found = {name: lambda s, jar=jar: ["java", "-jar", jar, "serve", *options, "-U", s, image]
             for name, jar in builds(arguments).items()}
    if shutil.which("nbdkit"):
        found["nbdkit"] = lambda s: ["nbdkit", "-f", "-U", s, "file", image]
    return found


def empty_cache(image, offset):
    descriptor = os.open(image, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, offset, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def random_reads(server, connections, start, size, seconds, *more):
    return fio(server, server.uri, "randread", "4k", connections, 1, seconds,
               f"--offset={start}", f"--size={size}", *more)


class Others(threading.Thread):
    """Connections that read a part of the file at random."""

    def __init__(self, *how):
        super().__init__(daemon=True)
        self.how = how
        self.result = None

    def run(self):
        self.result = random_reads(*self.how)


def cold(arguments, directory, image):
    size = os.path.getsize(image)
    print()
    head("one connection reads cached data", "server", ">p99 us", ">ratio", ">others' reads/s")
    kinds = {
        "cold data": (CACHED, size - CACHED),
        "cold data, 100 a second each": (CACHED, size - CACHED, "--rate_iops=100"),
        "cached data": (0, CACHED),
    }
    for name, command in commands(arguments, image).items():
        results = {"alone": []} | {kind: [] for kind in kinds}
        rates = {"alone": [0]} | {kind: [] for kind in kinds}
        # One server after the other: two would lock the image.
        with started({name: command}, directory) as servers:
            server = servers[name]
            random_reads(server, 1, 0, CACHED, 5)  # until the JIT compiler is done, and the data cached
            for _ in range(arguments.rounds):
                alone = random_reads(server, 1, 0, CACHED, arguments.seconds)
                results["alone"].append(alone["p99"])
                for kind, (start, length, *limit) in kinds.items():
                    empty_cache(image, CACHED)
                    others = Others(
                        server, READERS, start, length, arguments.seconds + 2, *limit)
                    others.start()
                    time.sleep(1)
                    beside = random_reads(server, 1, 0, CACHED, arguments.seconds)
                    results[kind].append(beside["p99"])
                    others.join()
                    rates[kind].append(others.result["rate"])
        alone = statistics.median(results["alone"])
        for kind, values in results.items():
            title = kind if kind == "alone" else f"beside {READERS} that read {kind}"
            value = statistics.median(values)
            row(title, name, f"{value:,.0f}", ratio(value, alone),
                f"{statistics.median(rates[kind]):,.0f}")


def uncached(arguments, directory, image):
    beyond = [f"--offset={CACHED}", f"--size={os.path.getsize(image) - CACHED}"]
    # All servers have the image open.
    with started(commands(arguments, image, "--force-share"), directory) as servers:
        def measure(name, connections, depth, seconds):
            empty_cache(image, CACHED)
            server = servers[name]
            return fio(server, server.uri, "randread", "4k", connections, depth, seconds, *beyond)

        for name in servers:
            for _ in range(2):  # until the JIT compiler is done
                measure(name, READERS, 1, 4)
        print()
        head("connections x depth", "server", ">requests/s", ">ratio", ">p99 us", ">ratio",
             ">CPU us/request", ">ratio")
        for case in UNCACHED:
            medians = alternate(
                servers, arguments.rounds, lambda name: measure(name, *case, arguments.seconds))
            peer = medians.get("nbdkit", {"rate": 0, "p99": 0, "cpu": 0})
            for name, median in medians.items():
                row("{} x {}".format(*case) if name == OURS else "", name,
                    f"{median['rate']:,.0f}", ratio(median["rate"], peer["rate"]),
                    f"{median['p99']:,.0f}", ratio(median["p99"], peer["p99"]),
                    f"{median['cpu']:.1f}", ratio(median["cpu"], peer["cpu"]))


class Writer(multiprocessing.Process):
    """A connection that writes until it is stopped, in a process so that it does not wait for others."""

    def __init__(self, path, *how):
        super().__init__(daemon=True)
        self.path = path
        self.how = how
        self.stopped = multiprocessing.Event()
        self.written = multiprocessing.Value("q", 0)
        self.start()

    def run(self):
        client = Client(self.path)
        while not self.stopped.is_set():
            self.written.value += self.write(client, *self.how)

    def stop(self):
        self.stopped.set()
        self.join()


class DurableWriter(Writer):
    """Writes 4 KiB at random places, with FUA."""

    @staticmethod
    def write(client):
        client.write(os.urandom(4096), random.randrange(CACHED // 4096) * 4096, True)
        return 4096


class SequentialWriter(Writer):
    """Writes the file from beginning to end, perhaps at a limited rate, and never flushes."""

    PIECE = os.urandom(256 << 10)

    def __init__(self, path, size, rate):
        self.began = time.monotonic()
        super().__init__(path, size, rate)

    def write(self, client, size, rate):
        done = self.written.value
        client.write(self.PIECE, CACHED + done % (size - CACHED), False)
        if rate:
            ahead = done / (rate << 20) - (time.monotonic() - self.began)
            time.sleep(max(0, ahead))
        return len(self.PIECE)


def fua_rate(server, connections, size, seconds, rate):
    """Measures FUA writes per second, and the other writer's MiB per second."""
    os.sync()
    others = [] if rate is None else [SequentialWriter(server.socket, size, rate)]
    durable = [DurableWriter(server.socket) for _ in range(connections)]
    time.sleep(0.5)
    before = [writer.written.value for writer in durable + others]
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    rates = [(writer.written.value - start) / elapsed
             for writer, start in zip(durable + others, before)]
    for writer in durable + others:
        writer.stop()
    return sum(rates[:connections]) / 4096, sum(rates[connections:]) / (1 << 20)


def fua(arguments, directory, image):
    size = os.path.getsize(image)
    servers = commands(arguments, image)

    def measure(name):
        # One server after the other: two would lock the image.
        with started({name: servers[name]}, directory) as running:
            case = (running[name], arguments.connections, size)
            fua_rate(*case, 2, None)  # until the JIT compiler is done
            alone = fua_rate(*case, arguments.seconds, None)[0]
            beside, other = fua_rate(*case, arguments.seconds, arguments.rate)
        return {"alone": alone, "beside": beside, "other": other}

    for name in servers:
        measure(name)  # a first round, without result
    medians = alternate(servers, arguments.rounds, measure)
    print()
    head("server", ">FUA writes/s alone", ">ratio", ">beside an unflushed writer", ">ratio",
         ">that one's MiB/s")
    peer = medians.get("nbdkit", {"alone": 0, "beside": 0})
    for name, median in medians.items():
        row(name, f"{median['alone']:,.0f}", ratio(median["alone"], peer["alone"]),
            f"{median['beside']:,.0f}", ratio(median["beside"], peer["beside"]),
            f"{median['other']:.0f}")


def flushes(arguments, directory, image):
    commands = found_servers(image, directory, builds(arguments))
    commands.pop("nbd-server", None)  # its URI has a name
    with started(commands, directory) as servers:
        def measure(name, connections, seconds):
            server = servers[name]
            return fio(server, server.uri, "randwrite", "4k", connections, 1, seconds, "--fsync=1")

        for name in servers:
            measure(name, max(FLUSHING), 4)  # until the JIT compiler is done
        print()
        head("connections that write and flush", "server", ">flushes/s", ">ratio", ">p99 us",
             ">ratio", ">CPU us/flush", ">ratio")
        for case in FLUSHING:
            medians = alternate(
                servers, arguments.rounds, lambda name: measure(name, case, arguments.seconds))
            peer = medians.get("nbdkit", {"flushes": 0, "flush p99": 0, "cpu": 0})
            for name, median in medians.items():
                row(case if name == OURS else "", name,
                    f"{median['flushes'] / arguments.seconds:,.0f}",
                    ratio(median["flushes"], peer["flushes"]),
                    f"{median['flush p99']:,.0f}", ratio(median["flush p99"], peer["flush p99"]),
                    f"{median['cpu']:.1f}", ratio(median["cpu"], peer["cpu"]))


BLKIO = pathlib.Path("/sys/fs/cgroup/blkio")


@contextlib.contextmanager
def slow_disk(directory, mib, rate, iops):
    """Makes a file system on a disk with limits: MiB written, and reads, per second."""
    image = directory / "disk.raw"
    mounted = directory / "mounted"
    with open(image, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, mib << 20)
    device = subprocess.check_output(
        ["losetup", "--find", "--show", "--direct-io=on", image], text=True).strip()
    try:
        subprocess.check_call(["mkfs.ext4", "-q", device])
        mounted.mkdir()
        subprocess.check_call(["mount", device, mounted])
        try:
            limit(device, rate << 20, iops)
            yield mounted
        finally:
            # Without limits, since umount writes all dirty data.
            limit(device, 0, 0)
            subprocess.check_call(["umount", mounted])
    finally:
        subprocess.check_call(["losetup", "--detach", device])


def limit(device, bytes_written, reads):
    """Limits the bytes written and the reads per second of a device; 0 for no limit."""
    number = os.stat(device).st_rdev
    for name, value in ("write_bps", bytes_written), ("read_iops", reads):
        (BLKIO / f"blkio.throttle.{name}_device").write_text(
            f"{os.major(number)}:{os.minor(number)} {value}")


def add_options(parser):
    parser.add_argument("--file-size", type=int, default=2048, help="of the image, in MiB (2048)")
    parser.add_argument("--rate", type=int, default=0,
                        help="of the other writer, in MiB/s (0: no limit)")
    parser.add_argument("--connections", type=int, default=4, help="number that write with FUA (4)")
    parser.add_argument("--disk-rate", type=int, default=0,
                        help="limit of a slower disk's writes, in MiB/s (0: none)")
    parser.add_argument("--disk-iops", type=int, default=0,
                        help="limit of a slower disk's reads per second (0: none)")


def run(arguments, directory):
    limited = arguments.disk_rate or arguments.disk_iops
    if limited and (os.getuid() != 0 or not BLKIO.is_dir()):
        sys.exit(f"a slower disk needs root, and {BLKIO}")
    with contextlib.ExitStack() as stack:
        images = directory
        if limited:
            images = stack.enter_context(slow_disk(
                directory, arguments.file_size + 1024, arguments.disk_rate, arguments.disk_iops))
        image = images / "disk.img"
        make_image(image, arguments.file_size)
        for comparison in cold, uncached, fua, flushes:
            if chosen(comparison.__name__, arguments):
                comparison(arguments, directory, image)
