"""A Ceph cluster of one monitor and one OSD on 127.0.0.1, in a directory of its own, without root."""

import contextlib
import os
import socket
import subprocess
import sys
import uuid

NEEDS = ["ceph-mon", "ceph-osd", "monmaptool", "ceph-authtool", "ceph", "rados", "rbd"]
LIMIT_SECONDS = 300

CONFIGURATION = """\
[global]
fsid = {cluster}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {directory}/keyring
run dir = {directory}
crash dir = {directory}
admin socket =
log file =
mon cluster log file =
mon data = {directory}/mon
mon allow pool size one = true
mon data avail crit = 1
auth allow insecure global id reclaim = false
osd data = {directory}/osd
osd objectstore = bluestore
osd memory target = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
bluestore block size = 34359738368
"""


class Cluster:
    """A cluster with the pool rbd, which children of this process find by CEPH_CONF."""

    def __init__(self, directory):
        self.directory = directory
        self.conf = directory / "ceph.conf"
        self.daemons = []

    def run(self, *command):
        """Runs a command to its end; its errors are shown if it fails."""
        ended = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=LIMIT_SECONDS, check=False)
        if ended.returncode != 0:
            sys.exit(f"{command} failed: {ended.stdout.decode()}")

    def start(self):
        self.directory.mkdir()
        (self.directory / "osd").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monitor = f"v2:127.0.0.1:{free.getsockname()[1]}"
        cluster, disk = uuid.uuid4(), uuid.uuid4()
        self.conf.write_text(CONFIGURATION.format(
            cluster=cluster, monitor=monitor, directory=self.directory))
        os.environ["CEPH_CONF"] = str(self.conf)
        keys = self.directory / "keyring"
        keys.touch()
        for name, *caps in (
                ("mon.", "mon", "allow *"),
                ("client.admin", "mon", "allow *", "osd", "allow *"),
                ("osd.0", "mon", "allow profile osd", "osd", "allow *")):
            pairs = [word for kind, cap in zip(caps[::2], caps[1::2])
                     for word in ("--cap", kind, cap)]
            self.run("ceph-authtool", "--gen-key", "-n", name, *pairs, keys)
        monitors = self.directory / "monitors"
        self.run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", monitor, monitors)
        self.run("ceph-mon", "-i", "a", "--mkfs", f"--monmap={monitors}", f"--keyring={keys}")
        self.daemon("ceph-mon", "a")
        self.run("ceph", "osd", "new", disk, "0")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self.daemon("ceph-osd", "0")
        self.run("ceph", "osd", "pool", "create", "rbd", "8")
        self.run("ceph", "osd", "pool", "application", "enable", "rbd", "rbd")
        self.run("rados", "-p", "rbd", "create", "probe")  # returns when the pool takes a write

    def daemon(self, program, name):
        with open(self.directory / f"{program}.log", "wb") as log:
            self.daemons.append(subprocess.Popen(
                [program, "-f", "-i", name, "--conf", self.conf],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log))


@contextlib.contextmanager
def started(directory):
    """Starts a cluster in a directory that does not exist yet, and kills it at the end."""
    cluster = Cluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        for daemon in cluster.daemons:
            daemon.kill()
        for daemon in cluster.daemons:
            daemon.wait()
