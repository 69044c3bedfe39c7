"""Writes a picture to try the server with to standard output: a red circle on white, as a PNG. Needs nothing."""

import struct
import sys
import zlib

SIDE = 256
RADIUS = 80


def rows() -> bytes:
    """Filter byte and RGB pixels of every row."""
    centre = SIDE / 2
    data = bytearray()
    for y in range(SIDE):
        data.append(0)
        for x in range(SIDE):
            inside = (x - centre) ** 2 + (y - centre) ** 2 < RADIUS**2
            data += bytes((220, 20, 20) if inside else (255, 255, 255))
    return bytes(data)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main() -> None:
    """Writes the file."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows())), chunk(b"IEND", b"")]
    sys.stdout.buffer.write(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


if __name__ == "__main__":
    main()
