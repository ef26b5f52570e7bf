"""Image files where they cost: cold reads, and writes with FUA, beside nbdkit's file plugin.

The machine's own disk may be so quick that only processors are measured. --disk-rate and --disk-iops
make one that writes so much a second and reads so often, as a volume in a cloud or an older disk
does: ext4 on a loop device that the kernel slows down (as root, with version 1 of the blkio cgroup).

cold: the p99 latency of a connection that reads cached data, alone, and while 16 others read a part
of the same file at random that is not in the page cache. On a quick disk this is about processors,
which the readers at a limited rate leave alone; beside readers of cached data it shows what they
cost without any disk.

fua: writes of 4 KiB with FUA a second on some connections, while another one writes one part of the
file after the other and never flushes; and the same without that writer.
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

NEEDS = ["fio"]
CACHED = 64 << 20  # the part of the file that stays in the page cache
READERS = 16


def commands(arguments, image):
    """The servers that are here: name -> a command for a socket."""
    found = {name: lambda s, jar=jar: ["java", "-jar", jar, "serve", "-U", s, image]
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
    """Connections that read one part of the file at random."""

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
            random_reads(server, 1, 0, CACHED, 5)  # the JIT compiler's turn, and the page cache's
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


class Writer(multiprocessing.Process):
    """A connection that writes until it is stopped; a process, so that it waits for no other."""

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
    """Writes 4 KiB somewhere, with FUA."""

    @staticmethod
    def write(client):
        client.write(os.urandom(4096), random.randrange(CACHED // 4096) * 4096, True)
        return 4096


class SequentialWriter(Writer):
    """Writes one part after the other, at a steady rate if there is one, and never flushes."""

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
    """FUA writes a second, and what the other writer wrote meanwhile, in MiB a second."""
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
            fua_rate(*case, 2, None)  # the JIT compiler's turn
            alone = fua_rate(*case, arguments.seconds, None)[0]
            beside, other = fua_rate(*case, arguments.seconds, arguments.rate)
        return {"alone": alone, "beside": beside, "other": other}

    for name in servers:
        measure(name)  # a first round, which does not count
    medians = alternate(servers, arguments.rounds, measure)
    print()
    head("server", ">FUA writes/s alone", ">ratio", ">beside an unflushed writer", ">ratio",
         ">that one's MiB/s")
    peer = medians.get("nbdkit", {"alone": 0, "beside": 0})
    for name, median in medians.items():
        row(name, f"{median['alone']:,.0f}", ratio(median["alone"], peer["alone"]),
            f"{median['beside']:,.0f}", ratio(median["beside"], peer["beside"]),
            f"{median['other']:.0f}")


BLKIO = pathlib.Path("/sys/fs/cgroup/blkio")


@contextlib.contextmanager
def slow_disk(directory, mib, rate, iops):
    """A file system of its own, on a disk that writes so many MiB a second and reads so often."""
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
            # Without limits: what was not synced would be written at the disk's rate.
            limit(device, 0, 0)
            subprocess.check_call(["umount", mounted])
    finally:
        subprocess.check_call(["losetup", "--detach", device])


def limit(device, bytes_written, reads):
    """Lets a device write and read so much in a second; 0 for as much as it can."""
    number = os.stat(device).st_rdev
    for name, value in ("write_bps", bytes_written), ("read_iops", reads):
        (BLKIO / f"blkio.throttle.{name}_device").write_text(
            f"{os.major(number)}:{os.minor(number)} {value}")


def add_options(parser):
    parser.add_argument("--file-size", type=int, default=2048, help="of the image, in MiB (2048)")
    parser.add_argument("--rate", type=int, default=0,
                        help="of the other writer, in MiB/s (0: as it can)")
    parser.add_argument("--connections", type=int, default=4, help="that write with FUA (4)")
    parser.add_argument("--disk-rate", type=int, default=0,
                        help="what a disk of its own writes, in MiB/s (0: without a limit)")
    parser.add_argument("--disk-iops", type=int, default=0,
                        help="how often a disk of its own reads in a second (0: without a limit)")


def run(arguments, directory):
    limited = arguments.disk_rate or arguments.disk_iops
    if limited and (os.getuid() != 0 or not BLKIO.is_dir()):
        sys.exit(f"a disk of its own needs root, and {BLKIO}")
    with contextlib.ExitStack() as stack:
        images = directory
        if limited:
            images = stack.enter_context(slow_disk(
                directory, arguments.file_size + 1024, arguments.disk_rate, arguments.disk_iops))
        image = images / "disk.img"
        make_image(image, arguments.file_size)
        for name, comparison in ("cold", cold), ("fua", fua):
            if chosen(name, arguments):
                comparison(arguments, directory, image)
