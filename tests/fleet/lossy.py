"""A bad network between the workers and AWS: requests that are lost, and requests whose answers are.

Owns: relays on loopback, one for each endpoint, that reset a part of the connections: half of them before a request is
handed on, half after the service has carried it out and begins to answer. Does not own: understanding what is asked. What
a client sends first on a connection, or after an answer, is a request.
"""

import asyncio
import random
import threading
import urllib.parse

CHUNK = 1 << 16


class LossyNetwork:
    """`environment` is the given one, with every AWS_ENDPOINT_URL… leading through a relay."""

    def __init__(self, environment, part, seed):
        self.part, self.rng = part, random.Random(seed)
        self.requests = self.lost_before = self.lost_after = 0
        self.environment = dict(environment)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        relays = {}
        for name, url in environment.items():
            if name.startswith("AWS_ENDPOINT_URL"):
                if url not in relays:
                    target = urllib.parse.urlsplit(url)
                    started = asyncio.run_coroutine_threadsafe(self._listen(target.hostname, target.port), self.loop)
                    relays[url] = f"http://127.0.0.1:{started.result(10)}"
                self.environment[name] = relays[url]

    async def _listen(self, host, port):
        async def relay(reader, writer):
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
            except OSError:
                writer.transport.abort()
                return
            connection = _Connection(self, writer, upstream_writer)
            await asyncio.gather(connection.ask(reader), connection.answer(upstream_reader))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]


class _Connection:
    def __init__(self, network, client, service):
        self.network, self.client, self.service = network, client, service
        self.new_request, self.lose_answer = True, False

    def reset(self):
        self.client.transport.abort()
        self.service.transport.abort()

    async def ask(self, reader):
        network = self.network
        while data := await self._read(reader):
            if self.new_request:
                self.new_request = False
                network.requests += 1
                drawn = network.rng.random()
                if drawn < network.part / 2:
                    network.lost_before += 1
                    self.reset()
                    return
                self.lose_answer = drawn < network.part
            if not await self._write(self.service, data):
                return
        self.service.close()

    async def answer(self, reader):
        while data := await self._read(reader):
            if self.lose_answer:
                self.network.lost_after += 1
                self.reset()
                return
            self.new_request = True
            if not await self._write(self.client, data):
                return
        self.client.close()

    async def _read(self, reader):
        try:
            return await reader.read(CHUNK)
        except OSError:
            self.reset()
            return b""

    async def _write(self, writer, data):
        try:
            writer.write(data)
            await writer.drain()
            return True
        except OSError:
            self.reset()
            return False
