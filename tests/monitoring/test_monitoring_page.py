"""The page, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from support import DEADLINE, LONG, Gate, Task, eventually
from support.browser import Browser
from support.monitored import NAMES, NOWHERE, program, registry_fixture, stopped  # noqa: F401
from support.receiver import Receiver, answer, when

from fastsinks import Endpoint, monitoring

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(60)]

ROWS = """
return [...document.querySelectorAll("#rows tr")].map((row) => ({
  name: row.querySelector(".name").textContent,
  url: row.querySelector(".url").textContent,
  state: row.querySelector(".state").textContent,
  pending: row.querySelector(".pending div").textContent,
  line: row.querySelector(".spark path:last-child").getAttribute("d") || "",
  text: row.innerText,
  visible: row.getClientRects().length > 0,
}));
"""

CONTRAST = """
const channel = (value) => value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
const light = (color) => {
  const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map(channel);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }
};
const leaves = [...document.querySelectorAll("body *")].filter((node) =>
  !["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName) && node.getClientRects().length &&
  [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
return leaves.map((node) => {
  const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), node.className || node.tagName];
}).sort((x, y) => x[0] - y[0]);
"""


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    with Browser(program("chromedriver"), program("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The module's browser, on an empty page, as wide as a desk's screen."""
    one_browser.open("about:blank")
    one_browser.show()
    one_browser.complaints()
    one_browser.requests()
    yield one_browser
    one_browser.open("about:blank")


@pytest.fixture
def server(registry: Any) -> Iterator[monitoring.Server]:
    with monitoring.serve(port=0) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def rows(browser: Browser) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = browser.run(ROWS)
    return found


def wait_rows(
    browser: Browser, predicate: Callable[[list[dict[str, Any]]], object]
) -> list[dict[str, Any]]:
    eventually(lambda: predicate(rows(browser)), 20)
    return rows(browser)


def test_a_row_for_each_endpoint(
    browser: Browser, server: monitoring.Server, receiver: Receiver
) -> None:
    with Endpoint("one", receiver.url("/1")) as one, Endpoint("two", receiver.url("/2")):
        one.write_many(range(1234))
        assert one.flush(DEADLINE)
        browser.open(server.url + "/")
        first, second = wait_rows(browser, lambda found: len(found) == 2)
        assert (first["name"], first["url"]) == ("one", receiver.url("/1"))
        assert second["name"] == "two"
        assert first["state"] == second["state"] == "delivering"
        assert "200 OK: 1,234" in first["text"]
        assert browser.run("return document.title") == "fastsinks"
    assert browser.complaints() == []


def test_the_states(
    browser: Browser,
    server: monitoring.Server,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def state(name: str) -> str:
        return {row["name"]: row["state"] for row in rows(browser)}.get(name, "")

    with Endpoint("closed", receiver.url()) as closed:
        closed.write("event")
    down = Endpoint("down", NOWHERE, threshold=1, backoff=LONG)
    try:
        with Endpoint("good", receiver.url()):
            down.write("event")
            eventually(lambda: down.breaker_open)
            browser.open(server.url + "/")
            wait_rows(browser, lambda found: len(found) == 3)
            assert state("good") == "delivering"
            assert state("down") == "backing off"
            assert state("closed") == "closed"
            text = browser.text("#rows")
            assert "Connection refused" in text
            assert re.search(r"oldest \d+ s", text)
            assert "s ago" in text
            # It has been so for long:
            monkeypatch.setattr("fastsinks.monitoring._status.STUCK", 0.0)
            found = wait_rows(browser, lambda found: state("down") == "stuck")
            assert [row["state"] for row in found] == ["stuck", "delivering", "closed"]
            # The shapes differ, for those who do not see the colours.
            shapes = browser.run(
                "return [...document.querySelectorAll('#rows .mark path')]"
                ".map((path) => path.getAttribute('d'))"
            )
            assert len(set(shapes)) == 3
    finally:
        stopped(down)
    wait_rows(browser, lambda found: {row["state"] for row in found} == {"closed"})
    assert browser.complaints() == []


def test_it_updates_itself(browser: Browser, server: monitoring.Server, gate: Gate) -> None:
    with (
        Receiver(when(gate, answer())) as receiver,
        Endpoint("e", receiver.url(), timeout=DEADLINE) as endpoint,
    ):
        browser.open(server.url + "/")
        wait_rows(browser, lambda found: found and found[0]["pending"] == "0")
        endpoint.write_many(range(12))
        gate.wait_entered()
        wait_rows(browser, lambda found: found[0]["pending"] == "12")
        (row,) = wait_rows(browser, lambda found: found[0]["line"].count("L") >= 2)
        heights = [point.split()[-1] for point in row["line"].strip("M").split("L")]
        assert len(set(heights)) > 1, "the line is flat"
        gate.open()
        assert endpoint.flush(DEADLINE)
        (row,) = wait_rows(browser, lambda found: found[0]["pending"] == "0")
        assert "/s" in row["text"]
        with Endpoint("new", receiver.url()):
            wait_rows(browser, lambda found: len(found) == 2)


def test_it_says_when_it_cannot_reach_the_server(browser: Browser, registry: Any) -> None:
    server = monitoring.serve(port=0)
    port = int(server.url.rpartition(":")[2])
    with Endpoint("e", NOWHERE):
        browser.open(server.url + "/")
        wait_rows(browser, lambda found: len(found) == 1)
        assert browser.run("return document.getElementById('trouble').hidden")
        server.close()
        browser.wait("return !document.getElementById('trouble').hidden", 20)
        assert "Cannot reach the server" in browser.text("#trouble")
        assert browser.run("return document.getElementById('trouble').role") == "alert"
        assert len(rows(browser)) == 1  # the last that is known, and called old
        assert "numbers below are of" in browser.text("#trouble")
        with monitoring.serve(port=port):
            browser.wait("return document.getElementById('trouble').hidden", 20)


def test_it_asks_nobody_but_its_server(browser: Browser, server: monitoring.Server) -> None:
    with Endpoint("e", NOWHERE):
        browser.open(server.url + "/")
        wait_rows(browser, lambda found: len(found) == 1)
        asked = browser.requests()
    assert server.url + "/debug/endpoints" in asked
    strangers = [url for url in asked if not url.startswith((server.url + "/", "data:"))]
    assert strangers == []
    assert browser.complaints() == []


@pytest.mark.parametrize("key", NAMES)
def test_hostile_names_are_text(browser: Browser, server: monitoring.Server, key: str) -> None:
    name = NAMES[key]
    with Endpoint(name, NOWHERE + "?<b>"), Endpoint("neighbour", NOWHERE):
        browser.show(width=360)
        browser.open(server.url + "/")
        found = wait_rows(browser, lambda found: len(found) == 2)
        wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert found[1]["name"] == "neighbour"
    shown = found[0]["name"]
    if key == "long":
        assert shown.startswith("xxx")
        assert len(shown) < 1000
    elif key in ("quotes", "markup", "unicode", "direction"):
        assert shown == name
    elif key == "newlines":
        assert shown == "first\\nsecond\\x0d\\nthird\\x09fourth"
    elif key == "empty":
        assert shown == "(no name)"
    assert browser.run("return document.title") == "fastsinks"
    assert browser.run(
        "return document.querySelectorAll('main img, main script, main b').length"
    ) == (browser.run("return document.querySelectorAll('#states b').length"))
    assert wide[0] <= wide[1], "the page is wider than the screen"
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 360])
def test_it_can_be_read(
    browser: Browser, server: monitoring.Server, receiver: Receiver, scheme: str, width: int
) -> None:
    with Endpoint("closed", receiver.url()):
        pass
    down = Endpoint("down", NOWHERE, threshold=1, backoff=LONG)
    try:
        with Endpoint("good", receiver.url()) as good:
            good.write("event")
            down.write("event")
            eventually(lambda: down.breaker_open)
            browser.show(width=width, scheme=scheme)
            browser.open(server.url + "/")
            wait_rows(browser, lambda found: len(found) == 3)
            worst = browser.run(CONTRAST)[0]
            ground = browser.run("return getComputedStyle(document.body).backgroundColor")
            widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    finally:
        stopped(down)
    assert worst[0] >= 4.5, worst
    assert widths[0] <= widths[1]
    brightness = sum(json.loads("[" + ground.removeprefix("rgb(").removesuffix(")") + "]"))
    assert (brightness < 200) == (scheme == "dark")


def test_the_filter(browser: Browser, server: monitoring.Server) -> None:
    def visible() -> list[str]:
        return [row["name"] for row in rows(browser) if row["visible"]]

    with Endpoint("Billing", NOWHERE), Endpoint("search", NOWHERE):
        browser.open(server.url + "/")
        wait_rows(browser, lambda found: len(found) == 2)
        type_ = (
            "const box = document.getElementById('filter'); box.value = %s;"
            "box.dispatchEvent(new Event('input'))"
        )
        browser.run(type_ % json.dumps("bill"))
        assert visible() == ["Billing"]
        browser.run(type_ % json.dumps("nothing like it"))
        assert visible() == []
        assert "No endpoint matches" in browser.text("#empty")
        browser.run(type_ % json.dumps(""))
        assert visible() == ["Billing", "search"]


def test_without_endpoints(browser: Browser, server: monitoring.Server) -> None:
    browser.open(server.url + "/")
    browser.wait("return !document.getElementById('empty').hidden")
    assert "No endpoint" in browser.text("#empty")


def test_many_endpoints(browser: Browser, server: monitoring.Server, receiver: Receiver) -> None:
    endpoints = [Endpoint(f"endpoint-{i}", receiver.url()) for i in range(2000)]
    try:
        browser.open(server.url + "/")
        wait_rows(browser, lambda found: len(found) == 2000)
        took = browser.run(
            "const began = performance.now();"
            "return fetch('debug/endpoints').then((answer) => answer.json())"
            ".then((data) => { const got = performance.now(); show(data);"
            " return performance.now() - got; })"
        )
        assert took < 1000, "the page would be busy with nothing else"
    finally:
        for endpoint in endpoints:
            endpoint.close()


class Server(ThreadingMixIn, WSGIServer):
    """A browser may open a connection that it then says nothing on."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("path", ["/watch", "/watch/"])
def test_mounted_in_an_application(browser: Browser, registry: Any, path: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if not environ["PATH_INFO"].startswith("/watch"):
            start_response("404 Not Found", [])
            return [b"not here"]
        environ["SCRIPT_NAME"] = "/watch"
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/watch")
        return monitoring.wsgi_app(environ, start_response)

    with (
        Endpoint("e", NOWHERE),
        make_server("127.0.0.1", 0, application, Server, Quiet) as host,
    ):
        serving = Task(host.serve_forever, 0.05)
        try:
            browser.open(f"http://127.0.0.1:{host.server_port}{path}")
            wait_rows(browser, lambda found: len(found) == 1)
        finally:
            browser.open("about:blank")
            host.shutdown()
            serving.result()
