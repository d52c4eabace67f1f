"""Runs in the sandbox before any program: tries each wall and prints what it met, as JSON. See selftest."""

import ctypes
import errno
import json
import os
import socket

BLOCK = 1 << 20
FILE = 32 << 20
FOREIGN = ("/var/run/secrets", "/run/secrets", "/etc/shadow", "/etc/resolv.conf", "/etc/hosts", "/boot")


def descriptors() -> list[int]:
    """Open descriptors besides the three of every program and the one of its tests."""
    found = []
    for number in range(4, 4096):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        rows = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in rows}


def interfaces() -> list[str]:
    try:
        with open("/proc/net/dev") as file:
            return [line.split(":")[0].strip() for line in file if ":" in line]
    except OSError:
        return []


def has_route() -> bool:
    """Whether a datagram could leave; nothing is sent. The address is one that nobody has."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.connect(("192.0.2.1", 9))
    except OSError:
        return False
    return True


def writable() -> list[str]:
    found = []
    for folder in ("/", "/usr", "/etc", "/proc", "/usr/lib", "/dev"):
        try:
            with open(os.path.join(folder, "soda-probe"), "w"):
                found.append(folder)
        except OSError:
            continue
    return found


def room(most_bytes: int) -> int:
    """Bytes that fit on the disk, up to `most_bytes`; given back."""
    written = 0
    names: list[str] = []
    try:
        while written <= most_bytes:
            names.append(f"room-{len(names)}")
            with open(names[-1], "wb", buffering=0) as file:
                for _ in range(FILE // BLOCK):
                    written += file.write(bytes(BLOCK))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    for name in names:
        os.unlink(name)
    return written


def files(most: int) -> int:
    """Files that fit on the disk, up to `most`; given back."""
    count = 0
    os.mkdir("files")
    try:
        while count <= most:
            os.close(os.open(f"files/{count}", os.O_CREAT | os.O_WRONLY))
            count += 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    for number in range(count):
        os.unlink(f"files/{number}")
    return count


def main(most_bytes: int, most_files: int) -> None:
    own = status()
    print(
        json.dumps(
            {
                "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
                "capabilities": int(own.get("CapEff", "0"), 16) | int(own.get("CapPrm", "0"), 16),
                "no_new_privileges": ctypes.CDLL(None).prctl(39, 0, 0, 0, 0),
                "environment": sorted(os.environ),
                "descriptors": descriptors(),
                "interfaces": [name for name in interfaces() if name != "lo"],
                "has_route": has_route(),
                "files_of_the_machine": [path for path in FOREIGN if os.path.lexists(path)],
                "writable": writable(),
                "bytes": room(most_bytes) if most_bytes else 0,
                "files": files(most_files) if most_files else 0,
            }
        )
    )
