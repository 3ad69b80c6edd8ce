"""A real browser for tests: headless Chromium, driven by the WebDriver protocol over HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Self

from support import DEADLINE, eventually

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


class Browser:
    """One window. Everything blocks, for at most `DEADLINE` seconds."""

    def __init__(self, driver: str, binary: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._profile.name, "driver.log")
        self._driver = subprocess.Popen(
            [driver, "--port=0", f"--log-path={self._log}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self._root = f"http://127.0.0.1:{self._port()}"
            flags = [*FLAGS, f"--user-data-dir={self._profile.name}/profile"]
            options = {"binary": binary, "args": flags}
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._root += f"/session/{session['sessionId']}"
        except BaseException:
            self._end()
            raise

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.split("on port")[1].strip(" .\n"))
        raise AssertionError("chromedriver did not start")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(
            self._root + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=25) as answer:
            return json.load(answer)["value"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(DEADLINE)
        assert self._driver.stdout is not None
        self._driver.stdout.close()
        self._profile.cleanup()

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def show(self, *, width: int = 1360, height: int = 900, scheme: str = "light") -> None:
        """The screen's size, and whether its owner likes it "light" or "dark"."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", {"features": features})

    def _command(self, name: str, parameters: dict[str, Any]) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def run(self, script: str) -> Any:
        """The value of a function's body in JavaScript."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, script: str, timeout: float = DEADLINE) -> Any:
        """Wait until the value is true."""
        eventually(lambda: self.run(script), timeout)
        return self.run(script)

    def text(self, selector: str) -> str:
        """What a reader sees there."""
        value: str = self.run(f"return document.querySelector({json.dumps(selector)}).innerText")
        return value

    def complaints(self) -> list[str]:
        """What the page wrote on the console, refused requests and scripts included."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def requests(self) -> list[str]:
        """The URLs that the window has requested since the last call."""
        found = []
        for entry in self._ask("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))
