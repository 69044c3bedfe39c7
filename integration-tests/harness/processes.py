"""What the kernel says about processes and sockets, read from /proc. Changes nothing."""

from pathlib import Path

TCP_LISTEN = "0A"
TCP_ESTABLISHED = "01"
PROC = Path("/proc")


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name; None when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits to be reaped does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in "ZX"


def parent(pid: int) -> int:
    """Process id of the parent, 0 when there is none."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    parents = {int(entry.name): parent(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit()}
    found, level = [], [pid]
    while level:
        level = [child for child, above in parents.items() if above in level]
        found += level
    return found


def command_line(pid: int) -> list[str]:
    """Its arguments; empty when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_shard(pid: int) -> bool:
    """Whether this is the Python program of a rank."""
    arguments = command_line(pid)
    return "serve" in arguments and any("text-generation-server" in part.replace("_", "-") for part in arguments)


def _socket_inodes(pid: int) -> set[str]:
    try:
        links = [str(link.readlink()) for link in (PROC / str(pid) / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}


def listening_tcp(pids: list[int]) -> set[tuple[str, int]]:
    """Address (hexadecimal, as the kernel writes it) and port of every TCP socket that these processes listen on."""
    inodes = set[str]().union(*(_socket_inodes(pid) for pid in pids))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == TCP_LISTEN and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def connected_tcp(pids: list[int]) -> set[str]:
    """Remote addresses (hexadecimal, as the kernel writes them) of the open TCP connections of these processes."""
    inodes = set[str]().union(*(_socket_inodes(pid) for pid in pids))
    lines = [line.split() for table in ("tcp", "tcp6") for line in (PROC / "net" / table).read_text().splitlines()[1:]]
    open_now = [fields for fields in lines if fields[3] == TCP_ESTABLISHED and fields[9] in inodes]
    return {fields[2].split(":")[0] for fields in open_now}


def open_udp(pids: list[int]) -> set[str]:
    """Local addresses of the UDP sockets of these processes."""
    inodes = set[str]().union(*(_socket_inodes(pid) for pid in pids))
    lines = [line.split() for table in ("udp", "udp6") for line in (PROC / "net" / table).read_text().splitlines()[1:]]
    return {fields[1] for fields in lines if fields[9] in inodes}


def listening_unix(pids: list[int]) -> set[Path]:
    """Paths of the unix sockets that these processes listen on."""
    inodes = set[str]().union(*(_socket_inodes(pid) for pid in pids))
    lines = [line.split() for line in (PROC / "net" / "unix").read_text().splitlines()[1:]]
    accepting = "00010000"
    return {Path(fields[7]) for fields in lines if len(fields) > 7 and fields[6] in inodes and fields[3] == accepting}
