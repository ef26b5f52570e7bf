"""The parts that the comparisons share: servers, clients, the machine's load, tables of medians."""

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

# Words before the commands of servers and of clients; --apart makes them taskset.
server_prefix = []
client_prefix = []


def add_options(parser):
    """Adds the options that every comparison has."""
    parser.add_argument("--seconds", type=int, default=4, help="for each measurement (4)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case (3)")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="measure the cases whose names contain all these words")
    parser.add_argument("--jar", action="append", default=[], metavar="NAME=PATH",
                        help="compare another build of this server too")
    parser.add_argument("--busy", type=int, default=0, metavar="N",
                        help="keep N processes computing meanwhile (0)")
    parser.add_argument("--apart", action="store_true",
                        help="run clients and servers on different processors")
    parser.add_argument("--directory", help="make the images here (the temporary directory)")


def _compute():
    while True:
        pass


@contextlib.contextmanager
def machine(arguments):
    """Sets the load and the processors of clients and servers as the options say."""
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
    """Returns the builds of this server to compare: name -> jar."""
    return {OURS: JAR} | dict(build.split("=", 1) for build in arguments.jar)


def chosen(title, arguments):
    """True if --only selects this case."""
    return all(word in title for word in arguments.only.split())


def make_image(path, mib):
    """Makes a file of random data."""
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))


class Server:
    """A server process on its own Unix socket, or at another address."""

    def __init__(self, name, command, directory, address=None):
        self.name = name
        self.ours = not command(pathlib.Path())[0].startswith(("nbdkit", "qemu", "nbd-server"))
        plain = name.replace(" ", "-").replace(",", "")
        self.socket = directory / (plain + ".sock")
        self.socket.unlink(missing_ok=True)  # nbdkit does not remove it
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
        pid_file = directory / (plain + ".pid")  # of a server that goes into the background
        self.pid = int(pid_file.read_text()) if pid_file.exists() else self.process.pid

    def processes(self):
        """Returns the process and its children: the launcher starts a JVM, some servers fork."""
        found = [self.pid]
        for pid in found:
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
                try:
                    found += [int(child) for child in (task / "children").read_text().split()]
                except OSError:
                    pass
        return found

    def cpu_seconds(self):
        """Returns the processor time so far, including that of children that have ended."""
        ticks = 0
        for pid in self.processes():
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += sum(int(field) for field in fields[11:15])
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self, pids=None):
        """Returns the resident memory of some processes; without a list of them, of all."""
        total = 0
        for pid in pids or self.processes():
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
    """Starts servers by commands, name -> command for a socket, and stops them at the end."""
    servers = {}
    try:
        for name, command in commands.items():
            servers[name] = Server(name, command, directory, address)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


class Client:
    """A connection for requests that fio's engine does not make."""

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
    """Runs a case. Returns None if it failed on a server of another project.

    Times are in microseconds; "cpu" is the server's processor time for each request.
    """
    return fio_by(["--ioengine=nbd", f"--uri={uri}"], server, rw, block_size, connections, depth,
                  seconds, *more)


def fio_by(engine, server, rw, block_size, connections, depth, seconds, *more):
    """Runs a case as fio() does, by an engine of fio's; None instead of a server if it has none."""
    os.sync()  # so that this run does not wait for data that the run before has written
    before = server.cpu_seconds() if server else 0
    run = subprocess.run(
        [*client_prefix, "fio", "--output-format=json", "--name=case", *engine, f"--rw={rw}",
         f"--bs={block_size}", f"--numjobs={connections}", f"--iodepth={depth}", "--time_based=1",
         f"--runtime={seconds}", "--norandommap=1", "--randrepeat=0", "--group_reporting=1",
         "--thread=1", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    after = server.cpu_seconds() if server else 0
    if run.returncode != 0:
        if server is None or server.ours:
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
    """Measures each name in turn, several times. Returns name -> the medians of the figures.

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
    """Prints the head of a Markdown table; columns whose names begin with > hold numbers."""
    print("| " + " | ".join(column.lstrip(">") for column in columns) + " |")
    print("|" + "|".join("---:" if column.startswith(">") else "---" for column in columns) + "|",
          flush=True)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def ratio(value, other):
    return f"{value / other:.2f}" if other else ""
