"""Decompression bombs: small files of each format whose headers, or contents, claim enormous images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

SIDE = 60_000
"""3.6 billion pixels: 10.8 GB of RGB."""


def all_bombs() -> dict[str, bytes]:
    """Return them by name: the format, and how it does it."""
    return {name: make() for name, make in BOMBS.items()}


def _saved(format_name: str, mode: str = "RGB", size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, format_name, **options)
    return buffer.getvalue()


def _patched(data: bytes, *patches: tuple[int, bytes]) -> bytes:
    changed = bytearray(data)
    for offset, value in patches:
        changed[offset : offset + len(value)] = value
    return bytes(changed)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _zeros(count: int) -> bytes:
    """Return the zlib stream of so many zero bytes; the pieces of a megabyte are alike, and packed once."""
    pieces, rest = divmod(count, 2**20)
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">HH", count % 65521, 1)  # Adler-32
    return b"\x78\xda" + piece * pieces + packer.compress(bytes(rest)) + packer.flush() + checksum


def png(width: int = SIDE, height: int = SIDE, *extra: bytes, pixels: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content = _chunk(b"IDAT", pixels or zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + content + _chunk(b"IEND", b"")


def _png_with_much_text() -> bytes:
    packed = _zeros(200 * 2**20)
    texts = [_chunk(b"zTXt", b"key%d\0\0" % number + packed) for number in range(3)]
    profile = _chunk(b"iCCP", b"icc\0\0" + packed)
    return png(64, 64, profile, *texts, pixels=zlib.compress(bytes(64 * 193)))


def _png_of_more_rows_than_told() -> bytes:
    return png(64, 64, pixels=_zeros(800 * 2**20))


def _jpeg(width: int = 65_500, height: int = 65_500) -> bytes:
    data = _saved("JPEG")
    return _patched(data, (data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width)))


def _gif(*, frame: tuple[int, int] = (64, 64), screen: tuple[int, int] = (64, 64)) -> bytes:
    data = _saved("GIF", "P")
    at = data.index(b"\x2c", 13)
    return _patched(data, (6, struct.pack("<HH", *screen)), (at + 5, struct.pack("<HH", *frame)))


def _bmp(compression: int = 0) -> bytes:
    return _patched(_saved("BMP"), (18, struct.pack("<ii", SIDE, SIDE)), (30, struct.pack("<I", compression)))


def _tiff(**tags: tuple[int, int]) -> bytes:
    """Return a TIFF with a deflated strip of zeros; the tags may contradict each other."""
    pixels = _zeros(600 * 2**20) if "deflated" in tags else zlib.compress(bytes(64 * 64))
    entries = {256: (4, 64), 257: (4, 64), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1), 278: (4, 64)}
    entries |= {273: (4, 8 + 2 + 12 * 9 + 4), 279: (4, len(pixels))}
    entries |= {int(tag[1:]): value for tag, value in tags.items() if tag != "deflated"}
    directory = b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items())
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + pixels


def _box(data: bytes, name: bytes, skip: int, value: bytes) -> bytes:
    """Overwrite part of what follows a box's or marker's name."""
    return _patched(data, (data.index(name) + len(name) + skip, value))


def _webp_canvas() -> bytes:
    """Return an animation whose canvas is 16384 x 16384, its frame small."""
    frame = _saved("WEBP")[12:]
    side = struct.pack("<I", 2**14 - 1)[:3]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    small = struct.pack("<I", 63)[:3]
    piece = b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + small + small + b"\x64\0\0\0" + frame
    body = b"WEBP" + canvas + animation + piece
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _icon(inner: bytes, kind: int = 1) -> bytes:
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, kind, 1) + entry + inner


def _icns(inner: bytes) -> bytes:
    return b"icns" + struct.pack(">I", 16 + len(inner)) + b"ic10" + struct.pack(">I", 8 + len(inner)) + inner


def _fits() -> bytes:
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2"]
    cards += [f"NAXIS1  = {SIDE:>20}", f"NAXIS2  = {SIDE:>20}", "END"]
    return "".join(card.ljust(80) for card in cards).ljust(2 * 2880).encode()


def slow_jpeg(side: int, scans: int) -> bytes:
    """Return a grey progressive JPEG whose scans, a few bytes each, add nothing: each goes over all its blocks."""

    def segment(marker: int, data: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data

    def scan(first: int, last: int, bits: int, data: bytes) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, bits])) + data

    blocks = ((side + 7) // 8) ** 2
    one_bit_codes = bytes([1] + [0] * 15)
    tables = segment(0xDB, b"\0" + bytes([1] * 64)) + segment(0xC4, b"\x00" + one_bit_codes + b"\x00")
    tables += segment(0xC4, b"\x10" + one_bit_codes + b"\xe0")  # a run of empty blocks, its length in 14 bits
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    runs = "".join("0" + "1" * 14 for _ in range(blocks // 32767 + 1))
    runs += "1" * (-len(runs) % 8)
    empty = bytes(int(runs[at : at + 8], 2) for at in range(0, len(runs), 8)).replace(b"\xff", b"\xff\0")
    content = scan(0, 0, 0, bytes(blocks // 8 + 1)) + scan(1, 63, 0x01, empty) + scan(1, 63, 0x10, empty) * scans
    return b"\xff\xd8" + tables + frame + content + b"\xff\xd9"


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": png,
    "png, 900 million true pixels": lambda: png(30_000, 30_000, pixels=_zeros(30_000 * (3 * 30_000 + 1) // 8)),
    "png, texts": _png_with_much_text,
    "png, more rows": _png_of_more_rows_than_told,
    "jpeg": _jpeg,
    "gif": lambda: _gif(screen=(65_535, 65_535)),
    "gif, frame": lambda: _gif(frame=(65_535, 65_535)),
    "bmp": _bmp,
    "bmp, run lengths": lambda: _bmp(1),
    "ppm": lambda: b"P6 %d %d 255\n" % (SIDE, SIDE),
    "ppm, plain": lambda: b"P3 %d %d 255\n1 1 1" % (SIDE, SIDE),
    "pbm": lambda: b"P4 %d %d\n" % (SIDE, SIDE),
    "pfm": lambda: b"Pf\n%d %d\n1.0\n" % (SIDE, SIDE),
    "tiff": lambda: _tiff(t256=(4, SIDE), t257=(4, SIDE)),
    "tiff, strip": lambda: _tiff(deflated=(0, 0)),
    "tiff, tiles": lambda: _tiff(t322=(4, 2**30), t323=(4, 2**30)),
    "tiff, samples": lambda: _tiff(t277=(3, 65_535)),
    "tiff, rows a strip": lambda: _tiff(t278=(4, 2**32 - 1)),
    "tiff, length of a strip": lambda: _tiff(t279=(4, 2**32 - 1)),
    "webp": _webp_canvas,
    "avif": lambda: _box(_saved("AVIF"), b"ispe", 4, struct.pack(">II", SIDE, SIDE)),
    "jpeg 2000": lambda: _box(_saved("JPEG2000", no_jp2=True), b"\xff\x51", 4, struct.pack(">II", SIDE, SIDE)),
    "jp2": lambda: _box(_saved("JPEG2000"), b"ihdr", 0, struct.pack(">II", SIDE, SIDE)),
    "jp2, codestream": lambda: _box(_saved("JPEG2000"), b"\xff\x51", 4, struct.pack(">II", SIDE, SIDE)),
    "ico": lambda: _icon(png()),
    "ico, bmp": lambda: _icon(_bmp()[14:]),
    "cur": lambda: _icon(_bmp()[14:], kind=2),
    "icns": lambda: _icns(png()),
    "icns, jpeg 2000": lambda: _icns(_box(_saved("JPEG2000"), b"\xff\x51", 4, struct.pack(">II", SIDE, SIDE))),
    "tga": lambda: _patched(_saved("TGA"), (12, struct.pack("<HH", SIDE, SIDE))),
    "tga, run lengths": lambda: _patched(
        _saved("TGA", compression="tga_rle"), (12, struct.pack("<HH", SIDE, SIDE))
    ),
    "sgi": lambda: _patched(_saved("SGI"), (6, struct.pack(">HH", SIDE, SIDE))),
    "pcx": lambda: _patched(_saved("PCX"), (4, struct.pack("<HHHH", 0, 0, SIDE - 1, SIDE - 1))),
    "dds": lambda: _patched(_saved("DDS"), (12, struct.pack("<II", SIDE, SIDE))),
    "psd": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, SIDE, SIDE, 8, 3) + bytes(14),
    "psd, channels": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 56, 14_000, 14_000, 8, 3) + bytes(14),
    "qoi": lambda: b"qoif" + struct.pack(">IIBB", SIDE, SIDE, 3, 0) + bytes(8),
    "xbm": lambda: b"#define x_width %d\n#define x_height %d\nstatic char x_bits[] = {\n0" % (SIDE, SIDE),
    "xpm": lambda: b'/* XPM */\nstatic char *x[] = {\n"%d %d 1 1",\n"a c #000000",\n' % (SIDE, SIDE),
    "im": lambda: _saved("IM").replace(b"64*64", b"60000*60000"),
    "msp": lambda: _patched(_saved("MSP", "1"), (4, struct.pack("<HH", SIDE, SIDE))),
    "spider": lambda: _patched(_saved("SPIDER", "F"), (4, struct.pack("<f", SIDE)), (44, struct.pack("<f", SIDE))),
    "fits": _fits,
    "sun": lambda: struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, 0, 1, 0, 0),
    "blp": lambda: b"BLP2" + struct.pack("<IBBBBII", 1, 1, 8, 0, 0, SIDE, SIDE) + bytes(128) + bytes(1024),
    "gbr": lambda: struct.pack(">5I", 28, 2, SIDE, SIDE, 4) + b"GIMP" + bytes(8),
    "ftex": lambda: b"FTEX" + struct.pack("<IIIII", 1, SIDE, SIDE, 1, 1) + struct.pack("<II", 0, 32) + bytes(64),
    "dcx": lambda: struct.pack("<III", 0x3ADE68B1, 12, 0) + BOMBS["pcx"](),
}
