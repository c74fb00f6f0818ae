"""A relayed TCP connection, the base of the networks that lose, cut and hold requests.

Owns: handing bytes from a client to a service and back, and ending both sides at once. What a client sends first on a connection, or
first after a response, counts as a request; nothing is parsed. Does not own: what happens to a request (the subclasses).
"""

CHUNK = 1 << 16


class Connection:
    def __init__(self, network, client, service):
        self.network, self.client, self.service = network, client, service
        self.new_request = True

    def reset(self):
        self.client.transport.abort()
        self.service.transport.abort()

    async def read(self, reader):
        """The next bytes; none at the end of the connection, or if it failed."""
        try:
            return await reader.read(CHUNK)
        except OSError:
            self.reset()
            return b""

    async def write(self, writer, data):
        """Whether the bytes were written."""
        try:
            writer.write(data)
            await writer.drain()
            return True
        except OSError:
            self.reset()
            return False
