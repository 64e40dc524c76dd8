"""A wire of so many megabits a second between a client and the service: `wire.py PORT MEGABITS`, run as a process.

Both directions share nothing; each passes on what it reads no faster than it may. Prints its own port.
"""

import asyncio
import sys
import time
from typing import Final

#: Of what waits on the wire: little, as on a real one.
_PIECE_BYTES: Final = 1 << 16


class Wire:
    """One direction, shared by all connections."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes have passed."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + size / self._bytes_per_second
        await asyncio.sleep(max(0.0, self._free_at - now))


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, wire: Wire) -> None:
    """Pass on everything until the source ends."""
    try:
        while data := await source.read(_PIECE_BYTES):
            await wire.take(len(data))
            target.write(data)
            await target.drain()
        target.write_eof()
    except (ConnectionError, OSError):
        target.close()


async def main(port: int, megabits: float) -> None:
    """Listen until killed."""
    up, down = (Wire(megabits * 1_000_000 / 8) for _ in range(2))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back, up), pass_on(there, writer, down))
        back.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
