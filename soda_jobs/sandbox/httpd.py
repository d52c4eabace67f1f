"""The little of HTTP/1.1 that the server reads and writes. Whatever is odd about it is refused in words."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput
from soda_jobs.sandbox.types import Program, program_from_dict

MAX_BODY: Final = 256 << 20
MAX_HEAD: Final = 1 << 16
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    413: "Content Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


async def read_head(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise Refused(400, f"{first[:80]!r} is not an HTTP request line")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(words[0], words[1].partition("?")[0], headers)


async def read_body(reader: asyncio.StreamReader, request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal() and len(length) <= 18):
        raise Refused(411, f"Content-Length is {length[:40]!r}, and it must be the number of bytes of the body")
    if int(length) > MAX_BODY:
        raise Refused(413, f"the body has {length} bytes; at most {MAX_BODY} are accepted, so send fewer programs")
    return await reader.readexactly(int(length))


def read_programs(body: bytes) -> list[Program]:
    programs: dict[str, Program] = {}
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            program = program_from_dict(json.loads(line), field=f"line {number}")
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"line {number}: not JSON ({str(error)[:80]})") from error
        except InvalidInput as error:
            raise Refused(400, str(error)) from error
        if program.id in programs:
            raise Refused(400, f"line {number}.id: {program.id!r} stands there twice")
        programs[program.id] = program
    return list(programs.values())


def begin(writer: asyncio.StreamWriter) -> None:
    """The head of an answer that comes line by line."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())


async def say(writer: asyncio.StreamWriter, row: dict[str, Any] | None) -> None:
    """One line, as one chunk; None is an empty line, which means that we are alive."""
    line = b"\n" if row is None else json.dumps(row).encode() + b"\n"
    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
    await writer.drain()


async def end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def reply(writer: asyncio.StreamWriter, code: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)
    await writer.drain()
