"""What the comparisons share: servers, clients, the machine's load, and tables of medians."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import socket
import signal
import statistics
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
JAR = HERE.parent.parent / "app" / "target" / "nbd-multiconn.jar"
OURS = "nbd-multiconn"

# What to put before the command of a server and of a client; --apart fills them.
server_prefix = []
client_prefix = []


def add_options(parser):
    """The options of every comparison."""
    parser.add_argument("--seconds", type=int, default=4, help="for each measurement (4)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case (3)")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="cases whose names contain all these words")
    parser.add_argument("--jar", action="append", default=[], metavar="NAME=PATH",
                        help="another build of this server takes part")
    parser.add_argument("--busy", type=int, default=0, metavar="N",
                        help="N processes compute meanwhile (0)")
    parser.add_argument("--apart", action="store_true",
                        help="clients and servers run on different processors")
    parser.add_argument("--directory", help="where images are made (the temporary directory)")


def _compute():
    while True:
        pass


@contextlib.contextmanager
def machine(arguments):
    """The load, and who runs where, as the options want it."""
    if arguments.apart:
        processors = sorted(os.sched_getaffinity(0))
        half = len(processors) // 2
        if not half:
            sys.exit("--apart needs two processors")
        for prefix, part in (client_prefix, processors[:half]), (server_prefix, processors[half:]):
            prefix[:] = ["taskset", "-c", ",".join(map(str, part))]
    computing = [multiprocessing.Process(target=_compute, daemon=True)
                 for _ in range(arguments.busy)]
    for process in computing:
        process.start()
    try:
        yield
    finally:
        for process in computing:
            process.kill()


def builds(arguments):
    """This server's builds that take part: name -> jar."""
    return {OURS: JAR} | dict(build.split("=", 1) for build in arguments.jar)


def chosen(title, arguments):
    """Whether --only names this case."""
    return all(word in title for word in arguments.only.split())


def make_image(path, mib):
    """A file of random data."""
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))


class Server:
    """A server process on a Unix socket of its own, or at another address."""

    def __init__(self, name, command, directory, address=None):
        self.name = name
        self.ours = not command(pathlib.Path())[0].startswith(("nbdkit", "qemu", "nbd-server"))
        plain = name.replace(" ", "-").replace(",", "")
        self.socket = directory / (plain + ".sock")
        self.socket.unlink(missing_ok=True)  # nbdkit leaves it behind
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.log = open(directory / (plain + ".log"), "wb")
        self.process = subprocess.Popen(
            server_prefix + [str(word) for word in command(self.socket)],
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
        pid_file = directory / (plain + ".pid")  # of one that goes into the background
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
        """Processor time so far; that of forked children that have ended, too."""
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
        self.log.close()


@contextlib.contextmanager
def started(commands, directory, address=None):
    """Servers of the commands, name -> command for a socket, stopped at the end."""
    servers = {}
    try:
        for name, command in commands.items():
            servers[name] = Server(name, command, directory, address)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


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
    """Runs a case; None if it failed on another server than this project's.

    Times are in microseconds, "cpu" is the server's processor time for each request.
    """
    os.sync()  # what the run before has written is written back, so that this one does not wait
    before = server.cpu_seconds()
    run = subprocess.run(
        [*client_prefix, "fio", "--output-format=json", "--name=case", "--ioengine=nbd",
         f"--uri={uri}", f"--rw={rw}", f"--bs={block_size}", f"--numjobs={connections}",
         f"--iodepth={depth}", "--time_based=1", f"--runtime={seconds}", "--norandommap=1",
         "--randrepeat=0", "--group_reporting=1", "--thread=1", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    after = server.cpu_seconds()
    if run.returncode != 0:
        if server.ours:
            sys.exit(f"fio failed: {run.stderr.decode()}")
        return None  # nbd-server cannot take many connections at once
    text = run.stdout.decode()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    latency = side["clat_ns"]
    return {
        "rate": side["iops"],
        "p99": latency["percentile"]["99.000000"] / 1000,
        "p99.9": latency["percentile"]["99.900000"] / 1000,
        "max": latency["max"] / 1000,
        "flushes": job["sync"]["total_ios"],
        "flush p99": job["sync"]["lat_ns"].get("percentile", {}).get("99.000000", 0) / 1000,
        "cpu": (after - before) / max(1, side["total_ios"]) * 1e6,
    }


def alternate(names, rounds, measure):
    """Measures each name in turn, several times over: name -> the medians of what was measured.

    A name without any result is left out.
    """
    runs = {name: [] for name in names}
    for _ in range(rounds):
        for name, found in runs.items():
            result = measure(name)
            if result:
                found.append(result)
    return {name: {key: statistics.median(run[key] for run in found) for key in found[0]}
            for name, found in runs.items() if found}


def head(*columns):
    """Prints the head of a Markdown table; a column whose name begins with > holds numbers."""
    print("| " + " | ".join(column.lstrip(">") for column in columns) + " |")
    print("|" + "|".join("---:" if column.startswith(">") else "---" for column in columns) + "|",
          flush=True)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def ratio(value, other):
    return f"{value / other:.2f}" if other else ""
