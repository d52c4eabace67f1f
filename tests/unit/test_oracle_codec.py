"""What a program says survives the way out of its sandbox, and no bytes do harm."""

import collections
import decimal
import fractions
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from soda_jobs.sandbox.oracle.codec import MAX_DEPTH, SIZE, Drained, Garbled, TooLarge, decode, encode
from soda_jobs.sandbox.oracle.frames import read_frames, read_message
from soda_jobs.sandbox.oracle.values import Foreign


def refuse(value: Any) -> bytes:
    raise AssertionError(f"{value!r} is not plain")


def foreign(tag: bytes, number: int, name: str) -> Foreign:
    return Foreign(number, name)


def there_and_back(value: Any) -> Any:
    return decode(encode(value, refuse), foreign)


PLAIN = [
    *(None, True, False, 0, -1, 255, -256, 10**5000, -(10**5000), 0.0, 1e308, math.inf, 1 + 2j, "", "é", "\ud800"),
    *("a\x00b", b"", b"\xff\x00", [], (), {}, set(), frozenset(), [[], [()]], {"a": {1: (2, [3])}}, {1, 2, 3}),
    *(frozenset({(1, 2)}), range(3), range(10, 0, -2), bytearray(b"x"), collections.OrderedDict(a=1)),
    *(collections.Counter("abca"), collections.deque([1, 2]), decimal.Decimal("1.50"), fractions.Fraction(1, 3)),
    *([1, 1.0, True], int, list),
]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(value)
    assert found == value
    assert repr_of(found) == repr_of(value)


def repr_of(value: Any) -> str:
    return hex(value) if type(value) is int else repr(value)


def test_what_equality_cannot_see_comes_back_too() -> None:
    assert math.isnan(there_and_back(math.nan))
    assert math.copysign(1, there_and_back(-0.0)) == -1
    assert [type(item) for item in there_and_back([1, 1.0, True])] == [int, float, bool]


def a_value(draw: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: draw.choice([None, True, False]),
        lambda: draw.getrandbits(draw.choice([1, 8, 64, 300])) * draw.choice([1, -1]),
        lambda: draw.choice([draw.random(), draw.uniform(-1e300, 1e300), 5e-324, -0.0, math.inf]),
        lambda: "".join(chr(draw.choice([65, 233, 0x1F600, 0xD800, 0])) for _ in range(draw.randrange(5))),
        lambda: draw.randbytes(draw.randrange(5)),
        lambda: range(draw.randrange(9), draw.randrange(9), draw.choice([-1, 1, 3])),
    ]
    if depth < 4:
        kinds += [
            lambda: [a_value(draw, depth + 1) for _ in range(draw.randrange(4))],
            lambda: tuple(a_value(draw, depth + 1) for _ in range(draw.randrange(4))),
            lambda: {a_value(draw, 9): a_value(draw, depth + 1) for _ in range(draw.randrange(4))},
            lambda: {a_value(draw, 9) for _ in range(draw.randrange(4))},
            lambda: frozenset(a_value(draw, 9) for _ in range(draw.randrange(4))),
        ]
    return draw.choice(kinds)()


def test_any_plain_value_comes_back_as_it_was() -> None:
    draw = random.Random(1)
    for _ in range(3000):
        value = a_value(draw)
        assert there_and_back(value) == value
        assert sorted(encode(there_and_back(value), refuse)) == sorted(encode(value, refuse))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_very_deep_value_comes_back_as_one_that_equals_nothing(kind: type) -> None:
    value: Any = kind()
    for _ in range(100_000):
        value = kind([value])
    found, depth = there_and_back(value), 0
    hash(found) if kind is tuple else None
    while not isinstance(found, Foreign):
        found, depth = found[0], depth + 1
    assert depth == MAX_DEPTH


def test_bytes_that_nest_deeper_than_any_driver_are_refused() -> None:
    with pytest.raises(Garbled, match="deep"):
        decode(b"".join([b"t" + SIZE.pack(1)] * 100_000) + b"N", foreign)


def test_a_decimal_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(Garbled, match="decimal"):
        there_and_back(decimal.Decimal("1e999999"))
    assert there_and_back(decimal.Decimal("-1e9999")) == decimal.Decimal("-1e9999")
    assert math.isnan(there_and_back(decimal.Decimal("nan")))


def test_a_value_that_holds_itself_equals_nothing() -> None:
    value: list[Any] = [1]
    value.append(value)
    found = there_and_back(value)
    assert found[0] == 1
    assert isinstance(found[1], Foreign)
    assert found != [1, [1]]


def test_a_container_that_lies_about_its_content_is_read_past() -> None:
    class Lying(list[int]):
        def __iter__(self) -> Any:
            return iter([9])

        def __len__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            return True

    assert there_and_back(Lying([1, 2])) == [1, 2]
    assert type(there_and_back(Lying([1, 2]))) is list


def test_what_claims_another_class_is_foreign() -> None:
    class Claims:
        __class__ = list  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    class Number(int):
        def __eq__(self, other: object) -> bool:
            return True

    for value in (Claims(), Number(3)):
        data = encode([value], lambda _: b"X" + SIZE.pack(0) + SIZE.pack(1) + b"C")
        assert isinstance(decode(data, foreign)[0], Foreign)
        assert decode(data, foreign) != [3]


def test_a_large_value_is_refused_before_it_is_built() -> None:
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]  # 2**60 lists to a reader that does not look
    for value in (shared, [0] * 10**6, "x" * 2**21, 1 << 2**24):
        with pytest.raises(TooLarge):
            encode(value, refuse)


def test_elements_that_share_a_hash_are_refused() -> None:
    modulus = 2**61 - 1
    bad = encode([n * modulus for n in range(1, 3000)], refuse)
    for tag in (b"S", b"Z", b"K"):
        with pytest.raises(Garbled, match="hash"):
            decode(tag + bad[1:], foreign)
    assert decode(bad, foreign)[1] == 2 * modulus


def test_what_was_drained_says_whether_it_was_all() -> None:
    found = there_and_back(("value", Drained([1, 2], False), ()))[1]
    assert (found.items, found.is_whole) == ([1, 2], False)


# -- hostile bytes ------------------------------------------------------------------------------------------------


def frame(message: Any) -> bytes:
    data = encode(message, refuse)
    return SIZE.pack(len(data)) + data


GOOD = [
    ("value", None, ()),
    ("value", [1, {"a": 2.5}], ((0, [3]),)),
    ("raised", "E", "", ("Exception",)),
    ("end", 2),
]


def test_frames_are_read_in_order() -> None:
    found = read_frames(b"".join(map(frame, GOOD)), 2)
    assert found.is_whole
    assert found.load == GOOD[0]
    assert [read_message(data) for data in found.answers] == GOOD[1:3]


def test_frames_that_were_cut_off_are_not_whole() -> None:
    data = b"".join(map(frame, GOOD))
    for size in range(len(data)):
        assert not read_frames(data[:size], 2).is_whole


BAD = [
    b"".join(map(frame, GOOD)) + b"\0",
    b"".join(map(frame, [*GOOD, GOOD[1]])),
    b"".join(map(frame, [GOOD[0], GOOD[1], GOOD[1], GOOD[1], ("end", 3)])),
    b"".join(map(frame, [GOOD[0], GOOD[1], ("end", 1)])),
    b"".join(map(frame, [("end", 0)])),
    b"".join(map(frame, [("large", "0" * 64, ())])),
    b"".join(map(frame, [("raised", "E", "", ()), GOOD[1], ("end", 1)])),
    b"".join(map(frame, [GOOD[0], ("unreadable", "SyntaxError", "")])),
    frame(("value", 1)),
    frame(("value", 1, ((-1, 2),))),
    frame(("raised", 1, "", ())),
    frame(("end", True)),
    frame("value"),
    frame(()),
    frame(([],)),
    SIZE.pack(1) + b"?",
    SIZE.pack(0),
    SIZE.pack(5) + b"R" + SIZE.pack(0),
    SIZE.pack(5) + b"l" + SIZE.pack(2**32 - 1),
    SIZE.pack(11) + b"S" + SIZE.pack(1) + b"l" + SIZE.pack(0) + b"N",
]


@pytest.mark.parametrize("data", BAD)
def test_what_no_driver_writes_is_garbled(data: bytes) -> None:
    with pytest.raises(Garbled):
        read_frames(data, 2)


def test_no_bytes_raise_anything_else() -> None:
    draw = random.Random(2)
    good = b"".join(map(frame, GOOD))
    outcomes = collections.Counter[str]()
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(draw.randrange(1, 6)):
            data[draw.randrange(len(data))] = draw.choice(
                [0, 1, 255, draw.randrange(256), *b"NTFifcsblStdXRIJKMYgeyoCqr"]
            )
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        if draw.random() < 0.1:
            data = bytearray(SIZE.pack(40) + draw.randbytes(40))
        try:
            read_frames(bytes(data), 2)
            outcomes["read"] += 1
        except Garbled:
            outcomes["garbled"] += 1
    assert min(outcomes["read"], outcomes["garbled"]) > 100
