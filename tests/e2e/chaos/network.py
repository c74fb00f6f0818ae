"""A network between each worker and each service that cuts, holds and delays requests.

Owns: relays on loopback, one for each worker and service, which do one of the following to some requests, by a seed; partitions, which
cut off one worker from one service for a while; and counts of all of these.

| kind | what the worker sees | what the service sees |
|---|---|---|
| cut in the request | a connection that ends or is reset | half of a request |
| response lost | the same | the whole request: it takes effect |
| cut in the response | half of a response, then the same | the whole request |
| request held | nothing for a while; it may time out | the request late, perhaps after the worker repeated it |
| response held | the same | the request in time |
| delayed | a response that takes longer | the request a little late |
| partition, silent | nothing until its end, then a reset | nothing |
| partition, refused | connections that are reset at once | nothing |
"""

import asyncio
import collections
import random
import socket
import struct
import threading
import time
import urllib.parse

from e2e.common import relay

SERVICES = ["kinesis", "dynamodb", "s3"]
# The part of all requests that gets each kind of fault.
PARTS = {"cut in the request": 0.004, "response lost": 0.004, "cut in the response": 0.004, "request held": 0.0015,
         "response held": 0.0015, "delayed": 0.02}
# Shortest and longest, in seconds.
HELD, DELAYED = (3, 15), (0.05, 0.8)
PARTITIONS = ["partition, silent", "partition, refused"]
KINDS = [*PARTS, *PARTITIONS]


class Network:
    """`targets`: the URL of each service."""

    def __init__(self, targets, seed, parts=None, first_port=0):
        self.targets, self.parts = targets, dict(PARTS if parts is None else parts)
        self.rng = random.Random(seed)
        self.counts = collections.Counter()  # (service, kind)
        self.requests = collections.Counter()  # by service
        self.next_port = first_port
        self.servers = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def links(self):
        """Relays for one more worker."""
        links = Links()
        for service, url in self.targets.items():
            target = urllib.parse.urlsplit(url)
            service_relay = Relay(self, service, target.hostname, target.port)
            asyncio.run_coroutine_threadsafe(service_relay.listen(), self.loop).result(10)
            links.relays[service] = service_relay
        return links

    def port(self):
        """The next port, or 0 for any free one."""
        if self.next_port:
            self.next_port += 1
        return max(0, self.next_port - 1)

    def draw(self):
        """What is done to a request; None for nothing."""
        drawn = self.rng.random()
        for kind, part in self.parts.items():
            if drawn < part:
                return kind
            drawn -= part
        return None

    def missing(self):
        """Kinds that never occurred."""
        done = {kind for (_, kind), count in self.counts.items() if count}
        return [kind for kind in KINDS if kind not in done]

    def table(self):
        """The lines of a table: how often each kind occurred with each service."""
        width = max(map(len, KINDS))
        lines = [" " * width + "".join(f"{service:>10}" for service in self.targets)]
        lines.append(f"{'requests':{width}}" + "".join(f"{self.requests[service]:10,}" for service in self.targets))
        for kind in KINDS:
            lines.append(f"{kind:{width}}" + "".join(f"{self.counts[service, kind]:10,}" for service in self.targets))
        return lines

    def stop(self):
        """Ends every relay."""
        async def end():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for server in self.servers:
                server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Links:
    """One worker's relays."""

    def __init__(self):
        self.relays = {}

    def environment(self, environment):
        """A copy of the environment, with every service behind its relay."""
        endpoints = {f"AWS_ENDPOINT_URL_{service.upper()}": relay.url for service, relay in self.relays.items()}
        return {**environment, **endpoints}

    def partition(self, service, kind, seconds):
        relay = self.relays[service]
        relay.network.counts[service, kind] += 1
        relay.partition, relay.partition_until = kind, time.monotonic() + seconds
        relay.faulty_until = max(relay.faulty_until, relay.partition_until)
        if kind == "partition, refused":
            relay.network.loop.call_soon_threadsafe(relay.reset_all)

    def was_faulty(self, seconds):
        """Whether it was cut off, or held up, within the last `seconds`."""
        return any(relay.faulty_until > time.monotonic() - seconds for relay in self.relays.values())


class Relay:
    """One worker's way to one service."""

    def __init__(self, network, service, host, port):
        self.network, self.service, self.host, self.port = network, service, host, port
        self.partition, self.partition_until = None, 0.0
        self.faulty_until = float("-inf")  # the end of the last fault that lasted longer than a second
        self.connections = set()
        self.url = None

    async def listen(self):
        while True:
            try:
                server = await asyncio.start_server(self._relay, "127.0.0.1", self.network.port())
                break
            except OSError:
                if not self.network.next_port:
                    raise
        self.network.servers.append(server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def partitioned(self):
        return self.partition if time.monotonic() < self.partition_until else None

    def reset_all(self):
        for connection in list(self.connections):
            connection.reset()

    async def _relay(self, reader, writer):
        if self.partitioned() == "partition, refused":
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self, writer, upstream_writer)
        self.connections.add(connection)
        try:
            await asyncio.gather(connection.relay_requests(reader), connection.relay_responses(upstream_reader))
        except asyncio.CancelledError:
            connection.reset()  # The network was stopped.
        finally:
            self.connections.discard(connection)


class Connection(relay.Connection):
    """One connection of a worker, and the connection to the service behind it."""

    def __init__(self, service_relay, client, service):
        super().__init__(service_relay.network, client, service)
        self.relay, self.kind = service_relay, None

    def reset(self):
        # Half of the worker's connections end, half are reset. The service always sees an end: kinesis-local stops listening when
        # connections to it are reset.
        found = self.client.get_extra_info("socket")
        if self.network.rng.random() < 0.5 and found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        super().reset()

    def _count(self, kind):
        self.network.counts[self.relay.service, kind] += 1

    async def _hold(self, seconds):
        if seconds > 1:
            self.relay.faulty_until = max(self.relay.faulty_until, time.monotonic() + seconds)
        await asyncio.sleep(seconds)

    async def _cut_off(self):
        """In a partition nothing gets through, and at its end the connection is reset."""
        await asyncio.sleep(max(0, self.relay.partition_until - time.monotonic()))
        self.reset()

    async def relay_requests(self, reader):
        network = self.network
        while data := await self.read(reader):
            if self.relay.partitioned():
                await self._cut_off()
                return
            if self.new_request:
                self.new_request = False
                network.requests[self.relay.service] += 1
                self.kind = network.draw()
                if self.kind == "cut in the request":
                    self._count(self.kind)
                    await self.write(self.service, data[:max(1, len(data) // 2)])
                    self.reset()
                    return
                for kind, seconds in [("request held", HELD), ("delayed", DELAYED)]:
                    if self.kind == kind:
                        self._count(kind)
                        await self._hold(network.rng.uniform(*seconds))
            if not await self.write(self.service, data):
                return
        self.service.close()

    async def relay_responses(self, reader):
        while data := await self.read(reader):
            if self.relay.partitioned():
                await self._cut_off()
                return
            # A fault of a request hits the first bytes of its response.
            kind, self.kind = self.kind, None
            if kind in ("response lost", "cut in the response"):
                self._count(kind)
                if kind == "cut in the response":
                    await self.write(self.client, data[:max(1, len(data) // 2)])
                self.reset()
                return
            if kind == "response held":
                self._count(kind)
                await self._hold(self.network.rng.uniform(*HELD))
            self.new_request = True
            if not await self.write(self.client, data):
                return
        self.client.close()
