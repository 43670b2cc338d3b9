"""Runs Milvus, which listens on every address, in its own network namespace behind a Unix socket.

Started by `tests.index.milvus.server` with the interpreter that has the package `milvus`:
``inside.py DATA SOCKET PIDFILE``.
"""

import asyncio
import fcntl
import socket
import struct
import sys
from pathlib import Path

_SET_FLAGS, _UP = 0x8914, 0x41
_PORT = 19530


def raise_loopback() -> None:
    """In a new network namespace, the loopback interface is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack("16sh14s", b"lo", _UP, b""))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner = await asyncio.open_connection("127.0.0.1", _PORT)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))


async def main(data: str, path: str, pidfile: str) -> None:
    from milvus import MilvusServer, MilvusServerConfig

    raise_loopback()
    config = MilvusServerConfig(data_dir=data)
    config.set("proxy_port", _PORT)
    # The interval, in ms, at which strongly consistent reads proceed; the default is 200.
    config.set("proxy.timeTickInterval", 50)
    server = MilvusServer(config, wait_for_started=False)
    server.start()
    Path(pidfile).write_text(str(server.server_proc.pid))
    Path(path).unlink(missing_ok=True)
    listener = await asyncio.start_unix_server(relay, path)
    async with listener:
        await asyncio.get_running_loop().run_in_executor(None, server.server_proc.wait)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
