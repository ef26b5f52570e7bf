"""Brings a copy of a snapshot up to date by what a dirty bitmap names: changed.py URI CONTEXT FILE.

Debian's python3-libnbd is for /usr/bin/python3, which has to run this. Prints the bytes read, and in
how many extents, as JSON.
"""

import json
import os
import sys

import nbd

IN_FLIGHT = 16
LARGEST_READ = 1 << 20
LARGEST_QUESTION = 1 << 28
DIRTY = 1


def keep_in_flight(export, requests):
    """Makes requests, some at a time: functions that begin one, and return its cookie and its end.

    An end is called when the request has been answered, and may return another request or None.
    """
    requests = list(requests)[::-1]
    ends = {}
    while requests or ends:
        while requests and len(ends) < IN_FLIGHT:
            cookie, end = requests.pop()()
            ends[cookie] = end
        export.poll(-1)
        for cookie in [cookie for cookie in ends if export.aio_command_completed(cookie)]:
            if further := ends.pop(cookie)():
                requests.append(further)


def dirty_extents(export, context):
    """Asks the server for the dirty extents, and joins those that touch: [begin, end]."""
    found = []

    def question(begin, end):
        answered = begin

        def extents(name, offset, entries, _):
            nonlocal answered
            if name == context:
                for length, flags in zip(entries[::2], entries[1::2]):
                    if flags & DIRTY:
                        found.append([offset, offset + length])
                    offset += length
                answered = offset

        def rest():
            return question(answered, end) if answered < end else None

        return lambda: (export.aio_block_status(end - begin, begin, extents), rest)

    size = export.get_size()
    keep_in_flight(export, [question(begin, min(begin + LARGEST_QUESTION, size))
                            for begin in range(0, size, LARGEST_QUESTION)])
    joined = []
    for begin, end in sorted(found):
        if joined and joined[-1][1] == begin:
            joined[-1][1] = end
        else:
            joined.append([begin, end])
    return joined


def copy(export, found, file):
    """Copies extents into the file."""

    def piece(offset, length):
        data = nbd.Buffer(length)
        return lambda: (export.aio_pread(data, offset),
                        lambda: os.pwrite(file, data.to_bytearray(), offset) and None)

    keep_in_flight(export, [piece(offset, min(LARGEST_READ, end - offset))
                            for begin, end in found for offset in range(begin, end, LARGEST_READ)])


def main():
    uri, context, path = sys.argv[1:]
    export = nbd.NBD()
    export.add_meta_context(context)
    export.connect_uri(uri)
    if not export.can_meta_context(context):
        sys.exit(f"the server does not have {context}")
    found = dirty_extents(export, context)
    file = os.open(path, os.O_WRONLY)
    copy(export, found, file)
    os.close(file)
    export.shutdown()
    print(json.dumps({"bytes": sum(end - begin for begin, end in found), "extents": len(found)}))


if __name__ == "__main__":
    main()
