"""Images of a Ceph cluster, served by this server and by qemu-nbd, and used by fio's rbd engine.

The cluster is one monitor and one OSD on this machine, in a temporary directory; all use the same
image of 1 GiB, with the default features, whose data was written before.

servers: qemu-nbd is measured with --cache=none and --cache=writeback, and the better one counts.
fio's rbd engine is measured with 4 jobs x depth 8, where each job opens the image for itself, so that
writers pass the image's exclusive lock around; and with 1 x 32, one opener with as many requests in
flight, also without librbd's cache, as the servers use the image: no server can be faster than that.

handles: one handle for all connections, without and with librbd's cache, compared with
--rbd-handle=connection. The cache writes back.

incremental: an image of 10 GiB whose first part holds data, a snapshot, changes of 1 % scattered over
that part, another snapshot; a copy of the first snapshot is brought up to date by the dirty bitmap,
compared with nbdcopy of the second.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import ceph
from measuring import (
    HERE, OURS, Client, alternate, builds, chosen, fio, fio_by, head, ratio, row, started)

NEEDS = ["fio", *ceph.NEEDS]
QEMU = "qemu-nbd"
QEMU_CACHES = "none", "writeback"
FIO_4 = "fio's rbd engine, 4 x 8"
FIO_1 = "fio's rbd engine, 1 x 32"
FIO_PLAIN = FIO_1 + ", without librbd's cache"

# name, fio's rw, fio's other options
CASES = [
    ("4 KiB random reads, 4 x 8", "randread", []),
    ("4 KiB random writes, 4 x 8", "randwrite", []),
]
REREADS = ("handles: 4 KiB random reads of 8 MiB, 4 x 8", "randread", ["--size=8M"])

HANDLES = {
    "shared": [],
    "shared, with librbd's cache": ["--ceph-option=rbd_cache=true"],
    "one for each connection, with librbd's cache": ["--rbd-handle=connection"],
}

BIG_MIB = 10240
DATA_MIB = 4096
# Changes at random places that hold data: of whole objects, and small ones; together 1 %. In an object
# that is new since the older snapshot, librbd names all from its beginning to its last byte.
CHANGES = ("4m", 13 * 4), ("64k", 50)


def add_options(parser):
    parser.add_argument("--data", type=int, default=DATA_MIB, metavar="MIB",
                        help=f"data in the image of the incremental copy ({DATA_MIB})")


def serve(jar, cluster, image, *options):
    return lambda s: ["java", "-jar", jar, "serve", "-U", s, f"--ceph-conf={cluster.conf}",
                      *options, f"rbd:rbd/{image}"]


def engine(image):
    return ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", f"--rbdname={image}"]


def warm(server):
    """Lets the JIT compiler work."""
    for rw in "randread", "randwrite":
        fio(server, server.uri, rw, "4k", 4, 8, 5)


def measured(server, rw, arguments, more):
    """Measures a server after a write, by which it has the image's exclusive lock."""
    client = Client(server.socket)
    client.write(bytes(4096), 0, False)
    client.socket.close()
    return fio(server, server.uri, rw, "4k", 4, 8, arguments.seconds, *more)


def by_engine(name, cluster, rw, arguments, more):
    """Measures fio's engine. The first second, in which it opens the image, does not count."""
    plain = cluster.conf.with_name("plain.conf")
    plain.write_text(cluster.conf.read_text() + "[client]\nrbd cache = false\n")
    os.environ["CEPH_CONF"] = str(plain if name == FIO_PLAIN else cluster.conf)
    try:
        shape = (4, 8) if name == FIO_4 else (1, 32)
        return fio_by(engine("disk"), None, rw, "4k", *shape, arguments.seconds, "--ramp_time=1",
                      *more)
    finally:
        os.environ["CEPH_CONF"] = str(cluster.conf)


def peers(arguments, directory, cluster, cases):
    ours = builds(arguments)
    commands = {name: serve(jar, cluster, "disk") for name, jar in ours.items()}
    if shutil.which("qemu-nbd"):
        commands |= {f"{QEMU} --cache={cache}": lambda s, cache=cache: [
            "qemu-nbd", "-f", "raw", "-t", "-e", "4", f"--cache={cache}", "-k", s,
            f"rbd:rbd/disk:conf={cluster.conf}"] for cache in QEMU_CACHES}
    with started(commands, directory) as servers:
        for name in ours:
            warm(servers[name])
        head("case", "server", ">requests/s", f">to {QEMU}", f">to {FIO_4}", f">to {FIO_1}",
             ">p99 us", ">CPU us/request")
        for title, rw, more in cases:
            def measure(name):
                if name in servers:
                    return measured(servers[name], rw, arguments, more)
                return by_engine(name, cluster, rw, arguments, more)
            engines = FIO_4, FIO_1, FIO_PLAIN
            medians = alternate([*servers, *engines], arguments.rounds, measure)
            qemus = {name: result for name, result in medians.items() if name.startswith(QEMU)}
            best = max(qemus, key=lambda name: qemus[name]["rate"], default=None)
            for name, result in medians.items():
                if name in qemus and name != best:
                    continue
                others = [ratio(result["rate"], medians[other]["rate"] if other else 0)
                          for other in (best, FIO_4, FIO_1)]
                row(title if name == OURS else "", name, f"{result['rate']:,.0f}", *others,
                    f"{result['p99']:,.0f}", f"{result['cpu']:.1f}" if name in servers else "")


def handles(arguments, directory, cluster, cases):
    jar = builds(arguments)[OURS]
    commands = {name: serve(jar, cluster, "disk", *options) for name, options in HANDLES.items()}
    print()
    head("case", "handles", ">requests/s", ">ratio", ">p99 us", ">CPU us/request")
    with started(commands, directory) as servers:
        for server in servers.values():
            warm(server)
        for title, rw, more in cases:
            medians = alternate(servers, arguments.rounds, lambda name: measured(
                servers[name], rw, arguments, more))
            first = next(iter(HANDLES))
            for name, result in medians.items():
                row(title if name == first else "", name, f"{result['rate']:,.0f}",
                    ratio(result["rate"], medians[first]["rate"]), f"{result['p99']:,.0f}",
                    f"{result['cpu']:.1f}")


def change(image, rw, block_size, size, mib):
    """Writes so many MiB of random data into the first part of the image."""
    subprocess.run(
        ["fio", "--name=change", *engine(image), f"--rw={rw}", f"--bs={block_size}", "--iodepth=8",
         f"--size={size}M", f"--io_size={mib}M", "--refill_buffers=1", "--randrepeat=1"],
        stdout=subprocess.DEVNULL, check=True)


def copied(command):
    """Runs a copy. Returns its seconds, and what it says of itself."""
    os.sync()  # so that this copy does not wait for what the one before has written
    began = time.monotonic()
    out = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, check=True).stdout
    return {"seconds": time.monotonic() - began} | (json.loads(out) if out else {})


def incremental(arguments, directory, cluster):
    cluster.run("rbd", "create", "big", "--size", f"{BIG_MIB}M")
    change("big", "write", "4m", arguments.data, arguments.data)
    cluster.run("rbd", "snap", "create", "big@s1")
    for block_size, mib in CHANGES:
        change("big", "randwrite", block_size, arguments.data, mib)
    cluster.run("rbd", "snap", "create", "big@s2")
    copies = {name: directory / name for name in ("incremental", "whole", "exported")}
    cluster.run("rbd", "export", "big@s1", copies["incremental"])
    with open(copies["whole"], "wb") as file:
        file.truncate(BIG_MIB << 20)
    jar = builds(arguments)[OURS]
    with started({"since": serve(jar, cluster, "big@s2?since=s1")}, directory) as servers:
        uri = servers["since"].uri
        commands = {
            "whole": ["nbdcopy", "--connections=4", uri, copies["whole"]],
            # Debian's python3-libnbd is for this Python.
            "incremental": ["/usr/bin/python3", HERE / "changed.py", uri,
                            "qemu:dirty-bitmap:since-s1", copies["incremental"]],
        }
        # In turn: the OSD's cache is smaller than the image.
        medians = alternate(commands, arguments.rounds, lambda name: copied(commands[name]))
    cluster.run("rbd", "export", "big@s2", copies["exported"])
    for name in "incremental", "whole":
        if subprocess.run(["cmp", copies[name], copies["exported"]], check=False).returncode != 0:
            sys.exit(f"the {name} copy differs from what rbd export writes")
    print()
    head("copy", ">MiB read", ">share of the image", ">s", ">times as fast")
    whole, changes = medians["whole"], medians["incremental"]
    row("whole, by nbdcopy", f"{arguments.data:,}", f"{arguments.data / BIG_MIB:.2%}",
        f"{whole['seconds']:.2f}", "1.0")
    row(f"incremental, {changes['extents']:,.0f} extents", f"{changes['bytes'] / (1 << 20):.1f}",
        f"{changes['bytes'] / (BIG_MIB << 20):.2%}", f"{changes['seconds']:.2f}",
        f"{whole['seconds'] / changes['seconds']:.1f}")
    print("\nBoth copies are equal to what rbd export writes.")


def run(arguments, directory: pathlib.Path):
    with ceph.started(directory / "ceph") as cluster:
        cluster.run("rbd", "create", "disk", "--size", "1G")
        subprocess.run(["fio", "--name=fill", *engine("disk"), "--rw=write", "--bs=4m",
                        "--iodepth=4", "--refill_buffers=1"], stdout=subprocess.DEVNULL, check=True)
        cases = [case for case in CASES if chosen(f"servers: {case[0]}", arguments)]
        if cases:
            peers(arguments, directory, cluster, cases)
        cases = [(f"handles: {title}", rw, more) for title, rw, more in CASES] + [REREADS]
        cases = [case for case in cases if chosen(case[0], arguments)]
        if cases:
            handles(arguments, directory, cluster, cases)
        if chosen("incremental", arguments):
            incremental(arguments, directory, cluster)
