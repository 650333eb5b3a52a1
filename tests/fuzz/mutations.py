"""The ways to damage a file. Each takes good bytes and a source of chance, and gives other bytes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz.elements import Element, Order

#: Most bytes of a damaged file: what is repeated must not fill the disk.
MAX_BYTES = 256 << 10
_HEAD_BYTES = 512
_LIMITS = (7, 8, 15, 16, 24, 31, 32, 63, 64)
_SMALL = (0, 1, 2, 3, 4, 7, 8, 9, 16, 100, 255, 1000, 16_000, 48_000, 90_000)


@dataclass(frozen=True)
class Good:
    """A good file, its pieces, and another good file to take bytes from."""

    data: bytes
    pieces: Sequence[Element]
    other: bytes


Mutation = Callable[[Good, random.Random], bytes]


def flip_bits(good: Good, chance: random.Random) -> bytes:
    """Flip 1 to 32 bits anywhere."""
    data = bytearray(good.data)
    for _ in range(chance.choice((1, 2, 4, 8, 32))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def flip_bits_of_head(good: Good, chance: random.Random) -> bytes:
    """Flip 1 to 8 bits in the first bytes."""
    data = bytearray(good.data)
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(min(_HEAD_BYTES, len(data)))] ^= 1 << chance.randrange(8)
    return bytes(data)


def random_run(good: Good, chance: random.Random) -> bytes:
    """Overwrite a run with noise."""
    return _overwrite(good.data, chance, chance.randbytes)


def zero_run(good: Good, chance: random.Random) -> bytes:
    """Overwrite a run with zeros, as a hole in a download has them."""
    return _overwrite(good.data, chance, bytes)


def ones_run(good: Good, chance: random.Random) -> bytes:
    """Overwrite a run with 0xFF."""
    return _overwrite(good.data, chance, lambda length: b"\xff" * length)


def truncate(good: Good, chance: random.Random) -> bytes:
    """Leave out the end, or all."""
    return good.data[: chance.randrange(len(good.data))]


def cut_start(good: Good, chance: random.Random) -> bytes:
    """Leave out the start."""
    return good.data[chance.randrange(1, len(good.data)) :]


def delete_bytes(good: Good, chance: random.Random) -> bytes:
    """Leave out some bytes in the middle."""
    start, end = _run(good.data, chance)
    return good.data[:start] + good.data[end:]


def repeat_bytes(good: Good, chance: random.Random) -> bytes:
    """Repeat some bytes up to 64 times."""
    start, end = _run(good.data, chance)
    return good.data[:end] + good.data[start:end] * chance.choice((1, 2, 64)) + good.data[end:]


def insert_noise(good: Good, chance: random.Random) -> bytes:
    """Insert noise somewhere."""
    at = chance.randrange(len(good.data) + 1)
    return good.data[:at] + chance.randbytes(chance.choice((1, 2, 4, 188, 4096))) + good.data[at:]


def interesting_number(good: Good, chance: random.Random) -> bytes:
    """Overwrite 1 to 8 bytes of a head or of a short piece with a number at a limit."""
    data = bytearray(good.data)
    piece = chance.choice([piece for piece in good.pieces if piece.end - piece.content < 256] or good.pieces)
    place = chance.randrange(piece.start, max(piece.start + 1, min(piece.end, piece.content + 96)))
    _write(data, place, chance.choice((1, 2, 4, 8)), _number(data, chance), _order(chance))
    return bytes(data)


def several_numbers(good: Good, chance: random.Random) -> bytes:
    """As `interesting_number`, in 2 to 6 places."""
    data = good.data
    for _ in range(chance.randrange(2, 7)):
        data = interesting_number(Good(data, good.pieces, good.other), chance)
    return data


def edit_size(good: Good, chance: random.Random) -> bytes:
    """Write another size into the size field of a piece."""
    sized = [piece for piece in good.pieces if piece.size_field is not None]
    if not sized:
        return interesting_number(good, chance)
    data = bytearray(good.data)
    for piece in chance.sample(sized, min(len(sized), chance.choice((1, 1, 2, 4)))):
        assert piece.size_field is not None
        place, length = piece.size_field
        old = int.from_bytes(data[place : place + length], piece.order)
        near = old + chance.choice((-9, -8, -4, -1, 1, 4, 8, 9, 1000))
        size = chance.choice((near, old * 2, old // 2, _number(data, chance)))
        _write(data, place, length, size, piece.order)
    return bytes(data)


def edit_kind(good: Good, chance: random.Random) -> bytes:
    """Overwrite the head of a piece with the head of another, or with noise."""
    data = bytearray(good.data)
    one, other = chance.choice(good.pieces), chance.choice(good.pieces)
    head = data[other.start : other.content] or chance.randbytes(4)
    length = min(len(head), max(1, one.content - one.start))
    data[one.start : one.start + length] = head[:length]
    return bytes(data)


def damage_piece(good: Good, chance: random.Random) -> bytes:
    """Overwrite bytes of one piece's content."""
    data = bytearray(good.data)
    piece = chance.choice([piece for piece in good.pieces if piece.content < piece.end] or good.pieces)
    for _ in range(chance.choice((1, 4, 16))):
        data[chance.randrange(piece.start, piece.end)] = chance.randrange(256)
    return bytes(data)


def delete_piece(good: Good, chance: random.Random) -> bytes:
    """Leave out a piece."""
    piece = chance.choice(good.pieces)
    return good.data[: piece.start] + good.data[piece.end :]


def repeat_piece(good: Good, chance: random.Random) -> bytes:
    """Repeat a piece up to 200 times."""
    piece = chance.choice(good.pieces)
    again = good.data[piece.start : piece.end] * chance.choice((1, 1, 3, 20, 200))
    return good.data[: piece.end] + again + good.data[piece.end :]


def swap_pieces(good: Good, chance: random.Random) -> bytes:
    """Swap two pieces that do not overlap."""
    one, other = sorted((chance.choice(good.pieces), chance.choice(good.pieces)), key=lambda p: p.start)
    if one.end > other.start:
        return delete_piece(good, chance)
    data = good.data
    between = data[one.end : other.start]
    first, second = data[one.start : one.end], data[other.start : other.end]
    return data[: one.start] + second + between + first + data[other.end :]


def shuffle_pieces(good: Good, chance: random.Random) -> bytes:
    """Put the outermost pieces in another order."""
    outer: list[bytes] = []
    end = good.pieces[0].start
    start = end
    for piece in good.pieces:
        if piece.start >= end:
            outer.append(good.data[piece.start : piece.end])
            end = piece.end
    chance.shuffle(outer)
    return good.data[:start] + b"".join(outer) + good.data[end:]


def splice(good: Good, chance: random.Random) -> bytes:
    """The start of this file and the end of another one."""
    return good.data[: chance.randrange(len(good.data))] + good.other[chance.randrange(len(good.other)) :]


def paste(good: Good, chance: random.Random) -> bytes:
    """Overwrite a run with bytes of another file."""
    source = chance.randrange(len(good.other))
    return _overwrite(good.data, chance, lambda length: good.other[source : source + length])


def append_other(good: Good, chance: random.Random) -> bytes:
    """Another file after this one."""
    return good.data + good.other


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        flip_bits,
        flip_bits_of_head,
        random_run,
        zero_run,
        ones_run,
        truncate,
        cut_start,
        delete_bytes,
        repeat_bytes,
        insert_noise,
        interesting_number,
        several_numbers,
        edit_size,
        edit_kind,
        damage_piece,
        delete_piece,
        repeat_piece,
        swap_pieces,
        shuffle_pieces,
        splice,
        paste,
        append_other,
    )
}


def _run(data: bytes, chance: random.Random) -> tuple[int, int]:
    """Where a run of 1 to 4,096 bytes starts and ends."""
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, 188, 512, 4096)))


def _overwrite(data: bytes, chance: random.Random, content: Callable[[int], bytes]) -> bytes:
    start, end = _run(data, chance)
    return data[:start] + content(end - start) + data[end:]


def _number(data: bytes | bytearray, chance: random.Random) -> int:
    """A number at which programs go wrong: at the limit of a type, at the file's size, or small."""
    limit = 1 << chance.choice(_LIMITS)
    return chance.choice(
        (limit, limit - 1, limit // 2 + 1, len(data) + chance.randrange(-1, 2), chance.choice(_SMALL))
    )


def _order(chance: random.Random) -> Order:
    return "big" if chance.random() < 0.7 else "little"


def _write(data: bytearray, place: int, length: int, number: int, order: Order) -> None:
    """Write a number's lowest bytes, without making the file longer."""
    raw = (number % (1 << 8 * length)).to_bytes(length, order)
    end = min(len(data), place + length)
    data[place:end] = raw[: end - place]
