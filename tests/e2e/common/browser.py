"""A headless Chromium, driven by its DevTools protocol.

Owns: the process, one page, and the requests that the page made. Does not own: any check.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import time
import urllib.request

import websocket

from e2e.common.session import until

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    """The browser of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. Use it in a `with` block."""

    def __init__(self, folder):
        self.profile = pathlib.Path(folder) / "chromium"
        self.profile.mkdir(parents=True)
        flags = ["--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                 "--disable-component-update", "--disable-extensions", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
                 f"--user-data-dir={self.profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium does not run as root otherwise.
        self.log = open(self.profile / "log", "wb")
        self.process = subprocess.Popen([find(), *flags, "about:blank"], stdout=self.log, stderr=self.log)
        self.number, self.requests, self.errors, self.socket = 0, [], [], None

    def __enter__(self):
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.socket:
            self.socket.close()
        self.process.kill()
        self.process.wait()
        self.log.close()

    def _connect(self):
        port_file = self.profile / "DevToolsActivePort"
        until(lambda: port_file.exists() and port_file.read_text().strip(), 60, "chromium does not start")
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            target = next(target for target in json.load(answer) if target["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _note(self, message):
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif kind == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif kind == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(str(arg.get("description", arg.get("value"))) for arg in params["args"]))

    def call(self, method, **params):
        """Sends a command, and returns its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def evaluate(self, script):
        """The value of an expression of the page, which may be a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{script[:200]}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, script, seconds, failure):
        """Waits until an expression is true."""
        until(lambda: self.evaluate(script), seconds, failure, every=0.1)

    def open(self, url):
        """Opens a page, and waits until all of it is there."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'", 60, f"{url} does not load")

    def size(self, width, height, dark=False, still=False, scale=1):
        """The size of the window, and what its user prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 700)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])
        time.sleep(0.3)

    def press(self, key, code=None, text=None):
        """Presses a key."""
        keys = {"Tab": 9, "Enter": 13, " ": 32}
        common = {"key": key, "code": code or key, "windowsVirtualKeyCode": keys.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path, whole=True):
        """Keeps a picture of the page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))
