"""A file system that answers when it is told to: files in memory, by the FUSE protocol of /dev/fuse.

usage: slow-files.py MOUNTPOINT NAME:SIZE...

A file whose name begins with "direct" bypasses the page cache, and takes many writes at a time.
Commands, a line each on standard input: "hold OPERATION..." keeps requests on the files whose names
contain "slow" unanswered from now on; "release" answers them, and keeps none any more. Says "ready",
and for each request that is kept "held OPERATION". Ends, and with it every request, when the input
does, or after five minutes without a command: who waits for it cannot be killed. Needs root. Source: linux/fuse.h.
"""

import ctypes
import os
import select
import stat
import struct
import sys
import time

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT = 20, 25, 26, 27, 28, 29, 36
BATCH_FORGET, FALLOCATE, LSEEK = 42, 43, 46
NAMES = {LOOKUP: "lookup", GETATTR: "getattr", OPEN: "open", READ: "read", WRITE: "write",
         FSYNC: "fsync", FLUSH: "flush", FALLOCATE: "fallocate", LSEEK: "lseek"}

ENOENT, EINVAL, ENOSYS = 2, 22, 38
ASYNC_READ, BIG_WRITES, PARALLEL_DIROPS, MAX_PAGES = 1 << 0, 1 << 5, 1 << 18, 1 << 22
DIRECT_IO, KEEP_CACHE, PARALLEL_DIRECT_WRITES = 1, 2, 64
MAX_WRITE = 1 << 20
ROOT = 1
PATIENCE = 300

mountpoint = sys.argv[1]
names = [None, None] + [argument.rsplit(":", 1)[0] for argument in sys.argv[2:]]
contents = [b"", b""] + [bytearray(int(argument.rsplit(":", 1)[1])) for argument in sys.argv[2:]]
held_operations = set()
held_requests = []


def attributes(node):
    size = len(contents[node])
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
    return struct.pack("<6Q10I", node, size, -(-size // 512), 0, 0, 0, 0, 0, 0, mode,
                       2 if node == ROOT else 1, 0, 0, 0, 4096, 0)


def operation(opcode, node, body):
    """What a request is answered: bytes, or a negative errno."""
    if opcode == LOOKUP:
        name = body.rstrip(b"\0").decode()
        if node != ROOT or name not in names[2:]:
            return -ENOENT
        found = names.index(name)
        return struct.pack("<4Q2I", found, 0, 0, 0, 0, 0) + attributes(found)
    if opcode in (GETATTR, SETATTR):
        return struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    if opcode == OPEN:
        direct = names[node].startswith("direct")
        return struct.pack("<Q2I", 0, DIRECT_IO | PARALLEL_DIRECT_WRITES if direct else KEEP_CACHE, 0)
    if opcode == OPENDIR:
        return struct.pack("<Q2I", 0, 0, 0)
    if opcode == READ:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(contents[node][offset:offset + size])
    if opcode == READDIR:
        _, offset, size = struct.unpack_from("<QQI", body)
        entries = b""
        for at in range(offset, len(names) - 2):
            name = names[at + 2].encode()
            entry = struct.pack("<2Q2I", at + 2, at + 1, len(name), stat.S_IFREG >> 12) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(entries) + len(entry) > size:
                break
            entries += entry
        return entries
    if opcode == WRITE:
        _, offset, size = struct.unpack_from("<QQI", body)
        contents[node][offset:offset + size] = body[40:40 + size]
        return struct.pack("<2I", size, 0)
    if opcode == FALLOCATE:
        _, offset, length = struct.unpack_from("<3Q", body)
        end = min(offset + length, len(contents[node]))
        contents[node][offset:end] = bytes(max(end - offset, 0))
        return b""
    if opcode == STATFS:
        return struct.pack("<5Q10I", 1 << 20, 1 << 20, 1 << 20, 0, 0, 4096, 255, 4096, *[0] * 7)
    if opcode in (RELEASE, RELEASEDIR, FSYNC, FLUSH):
        return b""
    return -ENOSYS


def reply(device, unique, answer):
    error, body = (answer, b"") if isinstance(answer, int) else (0, answer)
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
    except FileNotFoundError:
        pass  # it was interrupted


def is_slow(opcode, node, body):
    name = body.rstrip(b"\0").decode() if opcode == LOOKUP else names[node]
    return name is not None and "slow" in name and NAMES.get(opcode) in held_operations


def request(device):
    message = os.read(device, MAX_WRITE + 4096)
    _, opcode, unique, node = struct.unpack_from("<IIQQ", message)
    body = message[40:]
    if opcode == INIT:
        flags = ASYNC_READ | BIG_WRITES | PARALLEL_DIROPS | MAX_PAGES
        reply(device, unique, struct.pack("<4I2H2I2H8I", 7, 31, 128 << 10, flags, 1000, 1000,
                                          MAX_WRITE, 1, MAX_WRITE >> 12, 0, *[0] * 8))
    elif opcode in (FORGET, BATCH_FORGET, INTERRUPT):
        pass  # nothing is answered
    elif is_slow(opcode, node, body):
        held_requests.append((opcode, unique, node, body))
        print("held", NAMES[opcode], flush=True)
    else:
        reply(device, unique, operation(opcode, node, body))


def command(device, line):
    words = line.split()
    if words[:1] == ["hold"]:
        held_operations.update(words[1:])
    else:
        held_operations.clear()
        for opcode, unique, node, body in held_requests:
            reply(device, unique, operation(opcode, node, body))
        held_requests.clear()
    print("done", flush=True)


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % device
    if libc.mount(b"slow-files", mountpoint.encode(), b"fuse.slow", 0, options.encode()) != 0:
        sys.exit("mount: " + os.strerror(ctypes.get_errno()))
    print("ready", flush=True)
    lines = b""
    deadline = time.monotonic() + PATIENCE
    while True:
        ready = select.select([device, 0], [], [], max(0, deadline - time.monotonic()))[0]
        if not ready:
            break
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                break
            deadline = time.monotonic() + PATIENCE
            lines += data
            while b"\n" in lines:
                line, lines = lines.split(b"\n", 1)
                command(device, line.decode())
        elif device in ready:
            try:
                request(device)
            except OSError:
                break  # it was unmounted
    libc.umount2(mountpoint.encode(), 2)


main()
