"""What Prometheus gets, and that the dashboard and the alert rules ask for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.web_world import WebWorld, serving

MONITORING = Path(__file__).parents[2] / "appliance" / "monitoring"
MOVE = {"change": {"do": "move", "moves": {"shop": "a1"}}}


def expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "director-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((MONITORING / "director-rules.yml").read_text())
    return asked + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_the_director_is_told_as_it_is(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        await world.settle()
        viewer, operator = world.client("viewer"), world.client("operator")

        async def scrape() -> dict[tuple[str, str], float]:
            answer = await viewer.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain")
            found = {}
            for family in text_string_to_metric_families(answer.text):
                assert family.documentation
                for one in family.samples:
                    labels = ",".join(value for _, value in sorted(one.labels.items()))
                    found[one.name, labels] = one.value
            return found

        before = await scrape()
        assert before["ipshare_director_revision", ""] == before["ipshare_director_settled", ""] == 1
        assert before["ipshare_director_nodes", "acked,alive"] == 3
        assert before["ipshare_director_rollout_age_seconds", ""] == 0
        world.fleet.agents["c1"].gate.clear()
        await operator.post("/api/v1/changes", json=MOVE, headers={"If-Match": '"1"'})
        await operator.post("/api/v1/changes", json=MOVE, headers={"If-Match": '"1"'})
        await world.client().get("/api/v1/status", headers={"Authorization": "Bearer ips_guess"})
        after = await scrape()
        assert after["ipshare_director_revision", ""] == 2
        assert after["ipshare_director_settled", ""] == 0
        assert after["ipshare_director_rollout_age_seconds", ""] > 0
        assert after["ipshare_director_prefixes_under_way", ""] == 1
        assert after["ipshare_director_http_requests_total", "POST,202"] == 1
        assert after["ipshare_director_http_requests_total", "POST,412"] == 1
        assert after["ipshare_director_http_refused_total", "token"] == 1
        assert after["ipshare_director_node_revision", "c1"] == 1
        assert after["ipshare_director_node_heard_seconds", "a1"] >= 0
        world.fleet.agents["c1"].gate.set()
        named = {name for text in expressions() for name in re.findall(r"ipshare_\w+", text)}
        assert len(named) > 15
        assert named <= {name for name, _ in after}, "asked for and not there"

    serving(tmp_path, scenario)


def test_dashboard_and_rules_are_whole() -> None:
    panels = json.loads((MONITORING / "director-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    rules = yaml.safe_load((MONITORING / "director-rules.yml").read_text())["groups"][0]["rules"]
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules)
