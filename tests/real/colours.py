"""How many pixels of a PNG (8 bits, RGB or RGBA, not interlaced) have each of these colours: PICTURE RRGGBB..."""

import struct
import sys
import zlib

data = open(sys.argv[1], "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
at, packed = 8, b""
while at < len(data):
    (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
    body = data[at + 8 : at + 8 + length]
    if kind == b"IHDR":
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
        assert depth == 8 and colour in (2, 6) and interlace == 0, "another kind of PNG"
    elif kind == b"IDAT":
        packed += body
    at += length + 12
size = {2: 3, 6: 4}[colour]
raw, stride = zlib.decompress(packed), width * size
above, counts = bytearray(stride), dict.fromkeys(sys.argv[2:], 0)
for row in range(height):
    start = row * (stride + 1)
    method, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
    # The filters of the PNG specification, section 9.
    for i in range(stride if method else 0):
        left = line[i - size] if i >= size else 0
        corner = above[i - size] if i >= size else 0
        up = above[i]
        if method == 1:
            guess = left
        elif method == 2:
            guess = up
        elif method == 3:
            guess = (left + up) // 2
        else:
            near = left + up - corner
            far = abs(near - left), abs(near - up), abs(near - corner)
            guess = (left, up, corner)[far.index(min(far))]
        line[i] = (line[i] + guess) & 255
    pixels = [bytes(line[i : i + 3]).hex() for i in range(0, stride, size)]
    for wanted in counts:
        counts[wanted] += pixels.count(wanted)
    above = line
print(*counts.values())
