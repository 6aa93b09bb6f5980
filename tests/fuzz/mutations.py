"""Mutations of the bytes of a file, of its lines and of its values, each decided by a seed."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

NUMBERS = (b"nan", b"inf", b"-inf", b"-1", b"0", b"1e300", b"1e400", b"-7.5", b"999999999999999999999999", b"", b"abc",
           b"1,5", b"0x10", b"1e-300", b"2147483648", b"**********", b"-", b"1_0")  # fmt: skip
WORDS = (b"\x00", b"\x1b[31m", b"\xff\xfe", b"\xc3", b"\r", b"\t", b" ", b"\"", b"'", b"#", b"=", b"[", b"\xef\xbb\xbf",
         "é".encode(), b"\x85", b"\n\n")  # fmt: skip
INTEGERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**24, 0x7F7F7F7F, 255)
FLOATS = (np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 1e-40)
HEAD = 256  # bytes of a binary file that are changed as often as all the rest


# ---- of any bytes ---------------------------------------------------------------------------------------------------


def _place(data: bytes, rng: np.random.Generator) -> int:
    """A byte; as often in the head as behind it."""
    stop = min(len(data), HEAD) if rng.random() < 0.5 else len(data)
    return int(rng.integers(stop))


def bit_flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three bits are turned."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        found[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(found)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """It ends early, at any byte."""
    return data[: int(rng.integers(len(data)))]


def _stretch(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + int(2 ** rng.uniform(0, np.log2(len(data) + 1))))


def block_removed(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes in a row are gone."""
    start, stop = _stretch(data, rng)
    return data[:start] + data[stop:]


def block_doubled(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes in a row come twice."""
    start, stop = _stretch(data, rng)
    return data[:stop] + data[start:]


def blocks_swapped(data: bytes, rng: np.random.Generator) -> bytes:
    """Two stretches of the same length change places."""
    n = int(2 ** rng.uniform(0, np.log2(max(2, len(data) // 4))))
    first, second = sorted(int(one) for one in rng.integers(0, max(1, len(data) - n), 2))
    if second < first + n:
        second = min(first + n, len(data) - n)
    return (
        data[:first]
        + data[second : second + n]
        + data[first + n : second]
        + data[first : first + n]
        + data[second + n :]
    )


def appended(data: bytes, rng: np.random.Generator) -> bytes:
    """There is more behind its end."""
    return data + (
        data[: int(rng.integers(1, len(data)))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 64)))
    )


def integer_written(data: bytes, rng: np.random.Generator) -> bytes:
    """Four bytes, where four or more begin, become an integer of either byte order."""
    at = _place(data, rng) // 4 * 4
    number = np.array(rng.choice(INTEGERS), rng.choice(["<i4", ">i4"])).tobytes()
    return data[:at] + number + data[at + 4 :]


def float_written(data: bytes, rng: np.random.Generator) -> bytes:
    """Four or eight bytes become a number that is none, or is huge."""
    with np.errstate(over="ignore"):
        number = np.array(rng.choice(FLOATS), rng.choice(["<f4", ">f4", "<f8", ">f8"])).tobytes()
    at = _place(data, rng) // len(number) * len(number)
    return data[:at] + number + data[at + len(number) :]


# ---- of text --------------------------------------------------------------------------------------------------------


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def line_removed(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three lines in a row are gone."""
    lines = _lines(data)
    at = int(rng.integers(len(lines)))
    return b"".join(lines[:at] + lines[at + int(rng.integers(1, 4)) :])


def line_doubled(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three lines in a row come twice."""
    lines = _lines(data)
    at, n = int(rng.integers(len(lines))), int(rng.integers(1, 4))
    return b"".join(lines[: at + n] + lines[at:])


def lines_swapped(data: bytes, rng: np.random.Generator) -> bytes:
    """Two lines change places."""
    lines = _lines(data)
    first, second = (int(one) for one in rng.integers(0, len(lines), 2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def _words(data: bytes) -> list[tuple[int, int]]:
    """Where words begin and end, with those within commas, quotes, brackets and after equals signs."""
    found, start = [], None
    for place, byte in enumerate(data + b" "):
        inside = byte not in b" \t\r\n,=[]{}\"':"
        if inside and start is None:
            start = place
        if not inside and start is not None:
            found.append((start, place))
            start = None
    return found


def number_replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """A number becomes another, or none."""
    found = [(a, b) for a, b in _words(data) if data[a:b].lstrip(b"+-.")[:1].isdigit()]
    if not found:
        return bit_flip(data, rng)
    start, stop = found[rng.integers(len(found))]
    return data[:start] + NUMBERS[rng.integers(len(NUMBERS))] + data[stop:]


def word_replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """A word becomes another word of the file."""
    found = _words(data)
    start, stop = found[rng.integers(len(found))]
    a, b = found[rng.integers(len(found))]
    return data[:start] + data[a:b] + data[stop:]


def word_removed(data: bytes, rng: np.random.Generator) -> bytes:
    """A word is gone."""
    found = _words(data)
    start, stop = found[rng.integers(len(found))]
    return data[:start] + data[stop:]


def characters_inserted(data: bytes, rng: np.random.Generator) -> bytes:
    """Control characters, or bytes that are no UTF-8, stand somewhere."""
    at = int(rng.integers(len(data) + 1))
    return data[:at] + WORDS[rng.integers(len(WORDS))] + data[at:]


def encoded(data: bytes, rng: np.random.Generator) -> bytes:
    """The whole is UTF-16, or has the line ends of another system."""
    if rng.random() < 0.5:
        return data.decode(errors="replace").encode("utf-16")
    return data.replace(b"\n", b"\r\n" if rng.random() < 0.5 else b"\r")


OF_BYTES: tuple[Mutation, ...] = (
    bit_flip, bit_flip, truncated, block_removed, block_doubled, blocks_swapped, appended, integer_written,
    float_written,
)  # fmt: skip
OF_TEXT: tuple[Mutation, ...] = (
    bit_flip, truncated, block_removed, block_doubled, line_removed, line_doubled, lines_swapped, number_replaced,
    number_replaced, number_replaced, word_replaced, word_removed, characters_inserted, encoded,
)  # fmt: skip


def mutated(data: bytes, mutations: tuple[Mutation, ...], seed: tuple[int, int]) -> tuple[bytes, str]:
    """The data after one mutation that changes them, and the name of it."""
    rng = np.random.default_rng(seed)
    while True:
        chosen = mutations[rng.integers(len(mutations))]
        found = chosen(data, rng)
        if found != data:
            return found, chosen.__name__
