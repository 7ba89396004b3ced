"""A wire to PostgreSQL that takes its time each way: python -m bench.distance PORT MS DATABASE_URL."""

import asyncio
import contextlib
import sys
from urllib.parse import parse_qs, urlsplit

import uvloop


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    def write(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    while data := await reader.read(65536):
        # Later, and in order: what comes meanwhile is under way at the same time.
        loop.call_later(seconds, write, data)
    loop.call_later(seconds, writer.close)


async def serve(port: int, milliseconds: float, target: str) -> None:
    """Listen, and pass everything on, later."""
    parts = urlsplit(target)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = parts.port or 5432
        folder = parse_qs(parts.query).get("host")
        if folder:
            far_reader, far_writer = await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{number}")
        else:
            far_reader, far_writer = await asyncio.open_connection(parts.hostname, number)
        with contextlib.suppress(ConnectionError):
            seconds = milliseconds / 1000
            await asyncio.gather(_carry(reader, far_writer, seconds), _carry(far_reader, writer, seconds))

    server = await asyncio.start_server(accepted, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
