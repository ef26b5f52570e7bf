"""What the measuring scripts share: server processes, and fio as their client."""

import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

JAR = pathlib.Path(__file__).resolve().parent.parent / "app" / "target" / "nbd-multiconn.jar"

OURS = "nbd-multiconn"


class Server:
    """A server process on a Unix socket of its own, or where else it listens."""

    def __init__(self, name, command, directory, address=None):
        self.name = name
        self.socket = directory / (name + ".sock")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.log = open(directory / (name + ".log"), "wb")
        self.process = subprocess.Popen(
            [str(word) for word in command(self.socket)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                with socket.socket(socket.AF_INET if address else socket.AF_UNIX) as probe:
                    probe.connect(address or str(self.socket))
                break
            except OSError:
                time.sleep(0.05)
        else:
            sys.exit(f"{name} does not answer; see {self.log.name}")
        pid_file = directory / (name + ".pid")  # of one that goes into the background
        self.pid = int(pid_file.read_text()) if pid_file.exists() else self.process.pid

    def processes(self):
        """The process and its children: the launcher's is another JVM, some servers fork."""
        found = [self.pid]
        for pid in found:
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
                try:
                    found += [int(child) for child in (task / "children").read_text().split()]
                except OSError:
                    pass
        return found

    def cpu_seconds(self):
        """CPU time so far; of forked children that have ended, too."""
        ticks = 0
        for pid in self.processes():
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += sum(int(field) for field in fields[11:15])
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        total = 0
        for pid in self.processes():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait()


class Client:
    """A connection by hand, for what fio's engine does not do."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3))
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
        while True:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            self.receive(length)
            if kind == 1:
                return
            if kind & 0x80000000:
                sys.exit("the server refuses the export")

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                sys.exit("the server closed the connection")
            data += piece
        return data

    def read(self, length):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, length))
        self.receive(16 + length)

    def write(self, data, offset, fua):
        flags = 1 if fua else 0
        self.socket.sendall(
            struct.pack(">IHHQQI", 0x25609513, flags, 1, 1, offset, len(data)) + data)
        _, error, _ = struct.unpack(">IIQ", self.receive(16))
        if error:
            sys.exit(f"a write failed with error {error}")


def fio(server, uri, rw, block_size, connections, depth, seconds, *more):
    """Runs a case; None if it failed on another server than this project's."""
    os.sync()  # what the run before has written is written back, so that this one does not wait
    before = server.cpu_seconds()
    run = subprocess.run(
        ["fio", "--output-format=json", "--name=case", "--ioengine=nbd", f"--uri={uri}",
         f"--rw={rw}", f"--bs={block_size}", f"--numjobs={connections}", f"--iodepth={depth}",
         "--time_based=1", f"--runtime={seconds}", "--norandommap=1", "--randrepeat=0",
         "--group_reporting=1", "--thread=1", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    after = server.cpu_seconds()
    if run.returncode != 0:
        if server.name == OURS:
            sys.exit(f"fio failed: {run.stderr.decode()}")
        return None  # nbd-server cannot take many connections at once
    text = run.stdout.decode()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    return {
        "rate": side["iops"],
        "p99": side["clat_ns"]["percentile"]["99.000000"] / 1000,
        "flushes": job["sync"]["total_ios"],
        "flush p99": job["sync"]["lat_ns"].get("percentile", {}).get("99.000000", 0) / 1000,
        "cpu": (after - before) / max(1, side["total_ios"]) * 1e6,
    }
