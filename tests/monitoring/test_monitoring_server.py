"""The server and the WSGI application: routes, formats, mounting, closing, forking."""

from __future__ import annotations

import gzip
import json
import os
import socket
import sys
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support import DEADLINE, Task, together
from support.monitored import (
    NOWHERE,
    ask,
    get,
    registry_fixture,  # noqa: F401
    samples,
    value,
)
from support.processes import check_program, probe

from fastsinks import Endpoint, monitoring

PATHS = ["/", "/healthz", "/metrics", "/debug/vars", "/debug/endpoints"]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class TestRoutes:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/", "text/html"),
            ("/healthz", "text/plain"),
            ("/metrics", "text/plain"),
            ("/debug/vars", "application/json"),
            ("/debug/endpoints", "application/json"),
        ],
    )
    def test_get_and_head(self, path: str, kind: str) -> None:
        whole = ask(path)
        assert whole.status == 200
        assert whole.headers.get_content_type() == kind
        assert whole.headers.get_content_charset() == "utf-8"
        assert whole.headers["Content-Length"] == str(len(whole.body))
        head = ask(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers.get_content_type() == kind

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_nothing_else_is_done(self, path: str, method: str) -> None:
        refused = ask(path, method)
        assert refused.status == 405
        assert refused.headers["Allow"] == "GET, HEAD"

    @pytest.mark.parametrize("path", ["/favicon.ico", "/debug", "/metrics/x", "/../etc/passwd"])
    def test_not_found(self, path: str) -> None:
        assert ask(path).status == 404

    def test_healthz(self) -> None:
        assert ask("/healthz").text == "ok\n"

    def test_variables(self) -> None:
        with Endpoint("e", NOWHERE):
            assert json.loads(ask("/debug/vars").body) == monitoring.variables()

    def test_answers_are_not_kept_nor_guessed_about(self) -> None:
        for path in PATHS:
            headers = ask(path).headers
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "mount", ["/monitoring", "/a/b/monitoring", "/été".encode().decode("latin-1")]
    )
    def test_a_mount_without_its_slash_leads_to_the_one_with_it(self, mount: str) -> None:
        moved = ask("", SCRIPT_NAME=mount)
        assert moved.status == 308
        assert moved.headers["Location"].endswith(("monitoring/", "%C3%A9t%C3%A9/"))
        assert not moved.headers["Location"].startswith("/")


class TestMetrics:
    def test_ours_beside_the_processs_own(self) -> None:
        with Endpoint("e", NOWHERE):
            text = ask("/metrics").text
        assert value(text, "registry_notifications_pending_total", endpoint="e") == 0
        assert "python_info" in text

    def test_once_where_they_are_registered(self) -> None:
        monitoring.register()
        try:
            with Endpoint("e", NOWHERE):
                text = ask("/metrics").text
            assert text.count("# TYPE registry_notifications_events_total ") == 1
            assert value(text, "registry_notifications_pending_total", endpoint="e") == 0
            samples(text)
        finally:
            monitoring.unregister()

    def test_openmetrics(self) -> None:
        with Endpoint('a "b"\n\\', NOWHERE):
            answer = ask("/metrics", HTTP_ACCEPT=OPENMETRICS)
        assert answer.headers.get_content_type() == "application/openmetrics-text"
        assert answer.text.endswith("\n# EOF\n")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert families["registry_notifications_events"].type == "counter"
        names = {
            sample.labels["endpoint"]
            for sample in families["registry_notifications_events"].samples
        }
        assert 'a "b"\n\\' in names

    @pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
    def test_are_what_a_registry_would_say(
        self,
        registry: CollectorRegistry,
        accept: str,
    ) -> None:
        from prometheus_client.exposition import choose_encoder

        with Endpoint("one", NOWHERE, ignore_actions=["a"]) as one, Endpoint("two", NOWHERE):
            one.write({"action": "a"})
            encoder, content_type = choose_encoder(accept)
            theirs = encoder(registry).decode().removesuffix("# EOF\n")
            answer = ask("/metrics", HTTP_ACCEPT=accept)
        assert answer.headers["Content-Type"] == content_type
        ours = answer.text

        # Neither the order of labels matters, nor whether a whole number has a decimal point.
        def lines(text: str) -> list[Any]:
            return [
                sorted(line.removesuffix(".0").replace("{", ",").replace("}", ",").split(","))
                for line in text.splitlines()
                if "registry_notifications" in line
            ]

        assert lines(ours) == lines(theirs)

    @pytest.mark.parametrize("registered", [False, True])
    def test_by_name(self, registered: bool) -> None:
        if registered:
            monitoring.register()
        try:
            query = "name[]=registry_notifications_pending_total&name[]=python_info"
            with Endpoint("e", NOWHERE):
                text = ask("/metrics", QUERY_STRING=query).text
            names = {name for name, _ in samples(text)}
            assert names == {"registry_notifications_pending_total", "python_info"}
        finally:
            monitoring.unregister()

    def test_compressed_for_those_who_want_it(self) -> None:
        plain = ask("/metrics")
        assert plain.headers["Content-Encoding"] is None
        packed = ask("/metrics", HTTP_ACCEPT_ENCODING="deflate, gzip;q=0.5")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert "registry_notifications" in gzip.decompress(packed.body).decode()
        assert ask("/metrics", HTTP_ACCEPT_ENCODING="gzip;q=0").headers["Content-Encoding"] is None


class TestPage:
    def test_asks_nobody_else(self) -> None:
        page = ask("/")
        assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    def test_puts_text_into_the_page_as_text(self) -> None:
        page = ask("/").text
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in page


class TestServer:
    def test_serves_until_it_is_closed(self) -> None:
        before = set(threading.enumerate())
        with monitoring.serve(port=0) as server:
            assert server.url.startswith("http://127.0.0.1:")
            assert not server.url.endswith("/")
            assert not server.closed
            for path in PATHS:
                assert get(server.url + path).status == 200
            (thread,) = (
                thread
                for thread in set(threading.enumerate()) - before
                if "monitoring" in thread.name
            )
            assert thread.daemon
        assert server.closed
        assert not thread.is_alive()
        with pytest.raises(OSError):
            get(server.url + "/healthz")

    def test_the_port_is_free_again(self) -> None:
        server = monitoring.serve(port=0)
        port = int(server.url.rpartition(":")[2])
        server.close()
        with monitoring.serve(port=port) as again:
            assert again.url == server.url
            assert get(again.url + "/healthz").status == 200

    def test_close_is_idempotent_for_everybody(self) -> None:
        server = monitoring.serve(port=0)
        together(*[server.close] * 4)
        server.close()

    def test_a_port_that_is_taken(self) -> None:
        with monitoring.serve(port=0) as server, pytest.raises(OSError):
            monitoring.serve(port=int(server.url.rpartition(":")[2]))

    def test_only_this_machine_by_default(self) -> None:
        with monitoring.serve(port=0) as server:
            port = int(server.url.rpartition(":")[2])
            with socket.create_server(("127.0.0.2", port)):  # free: it does not listen everywhere
                pass

    def test_ipv6(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
        with monitoring.serve("::1", 0) as server:
            assert server.url.startswith("http://[::1]:")
            assert get(server.url + "/healthz").status == 200

    def test_everywhere(self) -> None:
        with monitoring.serve("0.0.0.0", 0) as server:
            assert get(server.url + "/healthz").status == 200

    @pytest.mark.parametrize(
        ("host", "port", "error"),
        [
            ("127.0.0.1", -1, ValueError),
            ("127.0.0.1", 65536, ValueError),
            ("127.0.0.1", True, TypeError),
            ("127.0.0.1", "5001", TypeError),
            ("127.0.0.1", 5001.0, TypeError),
            (b"127.0.0.1", 0, TypeError),
            (None, 0, TypeError),
        ],
    )
    def test_bad_addresses(self, host: Any, port: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"host|port"):
            monitoring.serve(host, port)

    def test_many_at_once(self) -> None:
        with monitoring.serve(port=0) as server, Endpoint("e", NOWHERE):
            answers = together(*[lambda: get(server.url + "/metrics")] * 8)
        assert [answer.status for answer in answers] == [200] * 8

    def test_a_client_that_says_nothing_holds_up_nobody(self) -> None:
        server = monitoring.serve(port=0)
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), DEADLINE) as silent:
            assert get(server.url + "/healthz").status == 200
            Task(server.close).result()
            assert silent.recv(1) == b""

    @pytest.mark.parametrize(
        "request_",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n",
            b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"GET /debug/vars HTTP/1.1\r\nAccept-Encoding: \xff\xfe\r\n\r\n",
        ],
        ids=["nothing", "no-path", "version", "tls", "long", "headers", "latin-1"],
    )
    def test_what_is_no_request(self, request_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
        with monitoring.serve(port=0) as server:
            host, port = server.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), DEADLINE) as client:
                client.sendall(request_)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            assert get(server.url + "/healthz").status == 200
        assert capfd.readouterr() == ("", "")

    def test_a_client_that_goes_away(self, capfd: pytest.CaptureFixture[str]) -> None:
        with monitoring.serve(port=0) as server, Endpoint("x" * 10_000, NOWHERE):
            host, port = server.url.removeprefix("http://").split(":")
            for _ in range(5):
                with socket.create_connection((host, int(port)), DEADLINE) as client:
                    client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert get(server.url + "/healthz").status == 200
        assert capfd.readouterr() == ("", "")

    def test_an_error_inside_is_logged_and_answered(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        def broken(self: Any) -> Any:
            raise ZeroDivisionError("secret")

        with Endpoint("e", NOWHERE), monitoring.serve(port=0) as server:
            monkeypatch.setattr(Endpoint, "metrics", property(broken))
            assert get(server.url + "/debug/vars").status == 500
            monkeypatch.undo()
            assert get(server.url + "/debug/vars").status == 200
        assert "ZeroDivisionError" in caplog.text
        assert "secret" not in caplog.text
        assert capfd.readouterr() == ("", "")


class TestProcess:
    def test_a_server_does_not_keep_the_process_alive(self) -> None:
        out = check_program("monitoring_server", "a_server_does_not_keep_the_process_alive")
        assert out == "ok\n"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_child_lets_go_of_the_port(self) -> None:
        out = check_program("monitoring_server", "a_child_lets_go_of_the_port")
        assert out == "free\n"

    def test_importing_fastsinks_alone_does_not_bring_the_server(self) -> None:
        out = probe("import fastsinks, sys; print('wsgiref.simple_server' in sys.modules)")
        assert out == "False\n"


def test_python_is_not_told_about_by_the_server() -> None:
    with monitoring.serve(port=0) as server:
        assert sys.version.split()[0] not in str(get(server.url + "/healthz").headers)
