"""What operators are given: alert rules, a dashboard, a page that tells the truth."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support import DEADLINE
from support.monitored import program

from fastsinks import monitoring

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.once

NAME = re.compile(r"registry_notifications_\w+")


def families() -> dict[str, str]:
    """What is exported: the name of a sample, and its kind."""
    registry = CollectorRegistry()
    monitoring.register(registry)
    try:
        return {
            f"{family.name}_total" if family.type == "counter" else family.name: family.type
            for family in registry.collect()
        }
    finally:
        monitoring.unregister(registry)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def promtool(*arguments: str, cwd: Path = DOCS) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


@pytest.mark.integration
class TestAlerts:
    def test_the_rules_are_valid(self) -> None:
        promtool("check", "rules", "alerts.yml")

    def test_they_fire_when_they_should_and_only_then(self) -> None:
        promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_a_test_that_sees_it_fire() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DOCS / "alerts.yml").read_text())
    tests = (DOCS / "alerts_test.yml").read_text()
    assert len(alerts) > 3
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\n\s+eval_time: \w+\n\s+exp_alerts:\n", tests), alert


@pytest.mark.parametrize("file", ["alerts.yml", "alerts_test.yml", "grafana-dashboard.json"])
def test_only_what_is_exported_is_asked_for(file: str) -> None:
    asked = set(NAME.findall((DOCS / file).read_text()))
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert asked
    assert asked <= families().keys()


def test_everything_that_is_exported_is_explained() -> None:
    text = (DOCS / "monitoring.md").read_text()
    explained = set(NAME.findall(text))
    assert families().keys() <= explained
    explained = {re.sub(r"_(bucket|sum|count)$", "", name) for name in explained}
    assert explained <= families().keys()
    for alert in re.findall(r"- alert: (\w+)", (DOCS / "alerts.yml").read_text()):
        assert alert in text


class TestDashboard:
    @pytest.mark.integration
    def test_its_expressions_are_valid(self, tmp_path: Path) -> None:
        rules = []
        for number, expression in enumerate(expressions()):
            for variable, stand_in in (
                ("$__rate_interval", "1m"),
                ("$__range", "1h"),
                ("$job", ".*"),
                ("$endpoint", ".*"),
            ):
                expression = expression.replace(variable, stand_in)
            assert "$" not in expression
            rules.append({"record": f"panel:{number}", "expr": expression})
        file = tmp_path / "rules.json"  # JSON is YAML
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        promtool("check", "rules", str(file))

    def test_every_family_is_on_it(self) -> None:
        shown = set(NAME.findall(" ".join(expressions())))
        assert families().keys() <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}

    def test_the_panels_are_whole_and_do_not_overlap(self) -> None:
        panels = dashboard()["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            assert panel["title"]
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells

    def test_every_variable_is_defined(self) -> None:
        defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard())))
        assert used - {"__all"} <= defined | {"__rate_interval", "__range"}


def test_the_programs_in_the_page_run(tmp_path: Path) -> None:
    """Each block of Python there is whole."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "monitoring.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "monitoring.md", "exec")
