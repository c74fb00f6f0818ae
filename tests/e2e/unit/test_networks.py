"""The networks that lose, cut, hold and delay requests (`e2e.fleet.lossy`, `e2e.chaos.network`)."""

import collections
import contextlib
import http.client
import http.server
import threading
import time
import unittest
import unittest.mock
import urllib.request

from e2e.chaos import network as networks
from e2e.common.session import until
from e2e.fleet.lossy import LossyNetwork

RESPONSE = b"y" * 1000


class ServiceTest(unittest.TestCase):
    """A service that notes the bodies that it received whole."""

    def setUp(self):
        carried_out = self.carried_out = []

        class Service(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if len(body) == int(self.headers["Content-Length"]):
                    carried_out.append(body)
                self.send_response(200)
                self.send_header("Content-Length", str(len(RESPONSE)))
                self.end_headers()
                self.wfile.write(RESPONSE)

            def log_message(self, *_args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args):
                """Ignores connections that are cut: the tests cut them."""

        service = Server(("127.0.0.1", 0), Service)
        self.addCleanup(service.server_close)
        self.addCleanup(service.shutdown)
        threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{service.server_port}"


class Lossy(ServiceTest):
    def test_requests_are_lost_before_and_after_they_took_effect(self):
        network = LossyNetwork({"AWS_ENDPOINT_URL": self.url, "OTHER": "x"}, 0.5, seed=1)
        self.assertEqual(network.environment["OTHER"], "x")
        answered = 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(network.environment["AWS_ENDPOINT_URL"], b"x" * 100_000, timeout=5) as response:
                    answered += response.read() == RESPONSE
        self.assertEqual(network.requests, 200)
        self.assertGreater(network.lost_before, 20)
        self.assertGreater(network.lost_after, 20)
        self.assertEqual(len(self.carried_out), 200 - network.lost_before)
        self.assertEqual(answered, 200 - network.lost_before - network.lost_after)


class Chaos(ServiceTest):
    def network(self, parts):
        network = networks.Network(dict.fromkeys(networks.SERVICES, self.url), 1, parts)
        self.addCleanup(network.stop)
        return network

    def ask(self, links, service="s3", timeout=10.0, times=1, body=b"x" * 5000):
        """Sends `times` requests, each on a connection of its own. Returns how many got a whole response."""
        answered, port = 0, int(links.relays[service].url.rsplit(":", 1)[1])
        for _ in range(times):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/", body)
                answered += connection.getresponse().read() == RESPONSE
            connection.close()
        return answered

    def test_without_faults_every_request_gets_its_response(self):
        network = self.network({})
        self.assertEqual(self.ask(network.links(), times=50), 50)
        self.assertEqual((network.requests["s3"], len(self.carried_out), network.counts.total()), (50, 50, 0))
        self.assertEqual(network.missing(), networks.KINDS)

    def test_a_request_that_is_cut_never_takes_effect(self):
        network = self.network({"cut in the request": 1.0})
        self.assertEqual(self.ask(network.links(), times=30), 0)
        self.assertEqual((network.counts["s3", "cut in the request"], self.carried_out), (30, []))

    def test_a_request_whose_response_is_lost_or_cut_took_effect(self):
        for kind in ["response lost", "cut in the response"]:
            self.carried_out.clear()
            network = self.network({kind: 1.0})
            self.assertEqual(self.ask(network.links(), times=30), 0)
            self.assertEqual((network.counts["s3", kind], len(self.carried_out)), (30, 30))

    def test_a_held_request_takes_effect_after_it_timed_out(self):
        network = self.network({"request held": 1.0})
        with unittest.mock.patch.object(networks, "HELD", (1, 1)):
            links = network.links()
            self.assertEqual((self.ask(links, timeout=0.3), self.carried_out), (0, []))
            until(lambda: self.carried_out, 10, "the held request never took effect")
        self.assertEqual(len(self.carried_out), 1)

    def test_a_held_response_comes_late(self):
        network = self.network({"response held": 1.0})
        with unittest.mock.patch.object(networks, "HELD", (0.5, 0.5)):
            started = time.monotonic()
            self.assertEqual(self.ask(network.links()), 1)
        self.assertGreater(time.monotonic() - started, 0.5)

    def test_a_partition_cuts_off_one_service_of_one_worker(self):
        network = self.network({})
        for kind in networks.PARTITIONS:
            self.carried_out.clear()
            mine, other = network.links(), network.links()
            self.assertFalse(mine.was_faulty(60))
            mine.partition("s3", kind, 1.0)
            self.assertTrue(mine.was_faulty(60))
            self.assertFalse(other.was_faulty(60))
            started = time.monotonic()
            self.assertEqual(self.ask(mine, timeout=0.2), 0)
            self.assertEqual(self.ask(mine, "kinesis") + self.ask(other), 2)
            self.assertLess(time.monotonic() - started, 1.0)
            time.sleep(1.2)
            self.assertEqual(self.ask(mine), 1)
            self.assertEqual((len(self.carried_out), network.counts["s3", kind]), (3, 1))

    def test_kinds_are_drawn_as_often_as_configured(self):
        network = self.network(networks.PARTS)
        drawn = collections.Counter(network.draw() for _ in range(100_000))
        for kind, part in networks.PARTS.items():
            self.assertAlmostEqual(drawn[kind] / 100_000, part, delta=part / 4)
