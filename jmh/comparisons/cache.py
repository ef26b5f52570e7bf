"""This server's cache in front of a slow server, compared with nbdkit's cache filter.

Each has its own upstream, nbdkit with a RAM disk whose reads and writes take 2 ms each. Reads: 4 KiB,
random, of a working set that is in the caches. Writes: 4 KiB, random, with a flush after every 64,
with write-back caches.
"""

from measuring import OURS, alternate, builds, chosen, fio, head, ratio, row, started

NEEDS = ["fio", "nbdkit"]
DELAY = "2ms"
SIZE_MIB = 1024
UNCACHED = "without cache"
NBDKIT = "nbdkit, cache"
FLUSH_EVERY = 64

# name, fio's rw, connections, depth, fio's other options, whether to measure without a cache too
CASES = [
    ("4 KiB random reads, 1 x 1", "randread", 1, 1, [], True),
    ("4 KiB random reads, 4 x 8", "randread", 4, 8, [], True),
    (f"4 KiB random writes, a flush for each {FLUSH_EVERY}, 4 x 8", "randwrite", 4, 8,
     [f"--fsync={FLUSH_EVERY}"], False),
]


def add_options(parser):
    parser.add_argument("--working-set", type=int, default=64, help="in MiB (64)")


def proxies(arguments, upstreams):
    """Returns servers in front of the upstreams, with caches that hold the whole working set."""
    commands = {
        name: lambda s, jar=jar, behind=upstreams[name].uri: [
            "java", "-jar", jar, "serve", "-U", s, "--cache=writeback",
            f"--cache-size={SIZE_MIB}M", behind]
        for name, jar in builds(arguments).items()}
    if UNCACHED in upstreams:
        commands[UNCACHED] = lambda s: [
            "java", "-jar", builds(arguments)[OURS], "serve", "-U", s, upstreams[UNCACHED].uri]
    commands[NBDKIT] = lambda s: [
        "nbdkit", "-f", "-U", s, "--filter=cache", "nbd", f"socket={upstreams[NBDKIT].socket}",
        "cache=writeback", "cache-on-read=true"]
    return commands


def measure(arguments, directory, case):
    title, rw, connections, depth, more, uncached = case
    names = [*builds(arguments), *([UNCACHED] if uncached else []), NBDKIT]
    size = f"--size={arguments.working_set}M"
    slow = {f"upstream {name}": lambda s: [
        "nbdkit", "-f", "-U", s, "--filter=delay", "memory", f"{SIZE_MIB}M",
        f"rdelay={DELAY}", f"wdelay={DELAY}"] for name in names}
    with started(slow, directory) as behind:
        upstreams = {name: behind[f"upstream {name}"] for name in names}
        with started(proxies(arguments, upstreams), directory) as servers:
            def case_on(name, seconds):
                return fio(servers[name], servers[name].uri, rw, "4k", connections, depth, seconds,
                           size, *more)
            for name, server in servers.items():
                # Until the working set is in the cache, and the JIT compiler is done.
                fio(server, server.uri, "read", "256k", 1, 8, arguments.seconds + 4, size)
                case_on(name, arguments.seconds + 2)
            medians = alternate(
                servers, arguments.rounds, lambda name: case_on(name, arguments.seconds))
    for name, result in medians.items():
        others = [other for other in medians if name == OURS and other != OURS]
        row(title if name == OURS else "", name, f"{result['rate']:,.0f}",
            "; ".join(f"{ratio(result['rate'], medians[other]['rate'])} times {other}"
                      for other in others),
            f"{result['p99']:,.0f}", f"{result['flush p99'] / 1000:.1f}", f"{result['cpu']:.1f}")


def run(arguments, directory):
    head("case", "server", ">requests/s", "ratio", ">p99 us", ">flush p99 ms", ">CPU us/request")
    for case in CASES:
        if chosen(case[0], arguments):
            measure(arguments, directory, case)
