"""Several processes behind one port: starts the workers of the demo, and starts again what dies. For this demo only.

The supervisor accepts each connection and hands it, unread, to a worker (``stage/worker.py``), because it wants the two
windows of the landing page in different processes. In production a process manager starts the workers, and the kernel
or a proxy spreads connections.
"""

import asyncio
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from itertools import count

from django.conf import settings

STOP_LIMIT_S = 3.0
# Pauses before a worker that died is started again: none for one that lived, then longer and longer.
LIVED_S = 5.0
LONGEST_PAUSE_S = 4.0
# A worker that is to be killed may be the one that answers the request for it: it has so long to do that.
REPRIEVE_S = 0.2

_REQUEST = re.compile(rb"(?:GET|POST|HEAD) (?:/as/(?P<side>[^:/ ]+)[^/ ]*)?(?P<stays>/(?:ws|events)/)?")


class Stopped(Exception):
    """Somebody wants the demo to end."""


class Supervisor:
    """Keeps ``workers`` processes behind one listening socket; ``say`` prints a line."""

    def __init__(self, listener, workers, say):
        self.listener = listener
        self.workers = workers
        self.say = say
        self.channels = {}  # number of a worker that serves -> the socket that leads to it
        self.serving = asyncio.Condition()
        self.processes = {}  # number of a worker -> its process
        self.sides = {}  # who looks through a window -> a number that stays theirs
        self.turn = count()

    async def run(self):
        """Serve until SIGINT or SIGTERM."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        self.listener.setblocking(False)
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(1, self.workers + 1):
                    tasks.create_task(self.keep(number))
                tasks.create_task(self.accept(tasks))
                await stop.wait()
                self.listener.close()
                raise Stopped  # which cancels what runs here, and waits for it
        except* Stopped:
            pass

    # Workers

    async def keep(self, number):
        """Keep one worker running."""
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with ours, theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "stage.worker", str(theirs.fileno()),
                    cwd=settings.BASE_DIR,
                    pass_fds=[theirs.fileno()],
                )  # fmt: skip
                theirs.close()
                self.processes[number] = process
                try:
                    await self.serve(number, process, ours)
                finally:
                    self.channels.pop(number, None)
                    await end(process)
            lived = time.monotonic() - began > LIVED_S
            pause_s = 0.0 if lived else min(max(2 * pause_s, 0.1), LONGEST_PAUSE_S)
            self.say(
                f"Worker {number}, process {process.pid}, has died (exit code {process.returncode}): starting another."
            )

    async def serve(self, number, process, channel):
        """Give a worker connections while it lives, and do what it asks for."""
        async for line in lines(channel):
            if line == b"ready":
                self.say(f"Worker {number} is process {process.pid}.")
                self.channels[number] = channel
                async with self.serving:
                    self.serving.notify_all()
            elif line.startswith(b"kill "):
                asyncio.get_running_loop().call_later(REPRIEVE_S, self.kill, int(line[5:]))
        await process.wait()

    def kill(self, pid):
        """Kill a worker, by the number of its process; nothing else."""
        for process in self.processes.values():
            if process.pid == pid and process.returncode is None:
                process.kill()

    # Connections

    async def accept(self, tasks):
        """Take connections from the port."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self.listener)
            tasks.create_task(self.hand_over(connection))

    async def hand_over(self, connection):
        """Give one connection to the worker that is to have it, and to another if that one has just died."""
        with connection, suppress(OSError):
            await readable(connection)
            start = connection.recv(200, socket.MSG_PEEK)
            while start:
                async with self.serving:
                    await self.serving.wait_for(lambda: self.channels)
                number = self.choose(start)
                try:
                    socket.send_fds(self.channels[number], [b"c"], [connection.fileno()])
                    return
                except OSError:
                    self.channels.pop(number, None)

    def choose(self, start):
        """Return the number of a worker: for a window always the same while it lives, for others each in turn."""
        numbers = sorted(self.channels)
        request = _REQUEST.match(start)
        if request and request["side"]:
            place = self.sides.setdefault(request["side"], len(self.sides)) % self.workers + 1
            if place in self.channels:
                return place
        if request and request["stays"]:
            return numbers[next(self.turn) % len(numbers)]
        return numbers[0]


async def lines(channel):
    """Yield what a worker writes, line by line, until it is gone."""
    rest = b""
    with suppress(ConnectionResetError):  # it died with connections that it had not taken yet
        while part := await asyncio.get_running_loop().sock_recv(channel, 100):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                yield line


async def readable(connection):
    """Wait until the first bytes are there."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(connection, lambda: there.done() or there.set_result(None))
    try:
        await there
    finally:
        loop.remove_reader(connection)


async def end(process):
    """Ask a process to end, and insist."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
