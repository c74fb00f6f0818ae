"""A bad network between the workers and AWS: requests are lost, and so are responses.

Owns: one relay on loopback for each endpoint. Each resets a part of the connections: half of them before a request is handed on,
half after the service has carried it out and begins to respond.
"""

import asyncio
import random
import threading
import urllib.parse

from e2e.common.relay import Connection


class LossyNetwork:
    """`environment` is a copy of the given one, with a relay behind every AWS_ENDPOINT_URL variable."""

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
            connection = LossyConnection(self, writer, upstream_writer)
            await asyncio.gather(connection.relay_requests(reader), connection.relay_responses(upstream_reader))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        return server.sockets[0].getsockname()[1]


class LossyConnection(Connection):
    lose_response = False

    async def relay_requests(self, reader):
        network = self.network
        while data := await self.read(reader):
            if self.new_request:
                self.new_request = False
                network.requests += 1
                drawn = network.rng.random()
                if drawn < network.part / 2:
                    network.lost_before += 1
                    self.reset()
                    return
                self.lose_response = drawn < network.part
            if not await self.write(self.service, data):
                return
        self.service.close()

    async def relay_responses(self, reader):
        while data := await self.read(reader):
            if self.lose_response:
                self.network.lost_after += 1
                self.reset()
                return
            self.new_request = True
            if not await self.write(self.client, data):
                return
        self.client.close()
