"""`[hazards]` and `[[site]]`: where the sites are, and which weather or earthquake is a hazard to them
(SYSTEMS.md S1.13).

As in schema: one model per table, judged alone; what ties them together is in ipshare.hazards.settings. These
tables are in a file of their own, not in that of a node; `[[site]]` has the keys of placement too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.values import Duration, Name, Table

Severity = Literal["Extreme", "Severe", "Moderate", "Minor"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SiteTable(Table):
    """A site: a place where workloads run. It is found by its ZIP code, by coordinates or by codes of its
    zones and county; several of these together are better, as alerts come with either."""

    name: Name = Field(description="Its name.")
    zip: str | None = Field(
        default=None, description="ZIP code, five digits: its centre counts, unless coordinates say better."
    )
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = Field(
        default=None, description="Degrees, north is positive. With longitude."
    )
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = Field(
        default=None, description="Degrees, east is positive."
    )
    ugc: list[str] = Field(
        default=[],
        description="Its zones and county as the weather service names them: TXZ213, TXC201. For alerts "
        "without a polygon.",
    )
    same: list[str] = Field(
        default=[],
        description="Its county by number, SAME 048201 or FIPS 48201. For alerts without a polygon.",
    )
    capacity: Positive | None = Field(
        default=None,
        description="How much fits in all, in the unit of the workloads' sizes. Default: what its nodes "
        "hold; without nodes it is needed.",
    )
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="Its share of what moves, beside the others' weights. 0: it takes nothing."
    )


class HazardFeed(Table):
    """A document that is asked for again and again."""

    name: Name = Field(description="Name, for people.")
    kind: Literal["nws", "cap", "usgs"] = Field(
        description="nws: GeoJSON of the US weather service. cap: CAP 1.2, alone or in a list or Atom feed. "
        "usgs: GeoJSON summary of earthquakes."
    )
    url: str = Field(min_length=1, description="Where it is; https, or http on this machine or for tests.")
    interval: Duration = Field(
        default=60.0, json_schema_extra={"default": "60s"}, description="Time between two questions."
    )
    max_age: Duration = Field(
        default=600.0,
        json_schema_extra={"default": "10m"},
        description="Without a good answer for so long the feed is stale.",
    )
    content_max_age: Duration | None = Field(
        default=None,
        description="The feed is stale too if the document itself says that it is older. For feeds that are "
        "written anew all the time, as those of earthquakes.",
    )


class HazardQuake(Table):
    """Earthquakes that are a hazard: so strong and so near. Several of these: any of them."""

    magnitude: Annotated[float, Field(ge=0, le=10)] = Field(description="At least this.")
    within_km: Annotated[float, Field(gt=0, le=20038)] = Field(description="At most so far from a site.")
    severity: Severity = Field(default="Severe", description="What it counts as.")


class Hazards(Table):
    """Which alerts and earthquakes are hazards, and what follows from one."""

    severity: Severity = Field(default="Severe", description="Alerts at least so severe.")
    certainty: Literal["Observed", "Likely", "Possible", "Unlikely"] = Field(
        default="Likely", description="Alerts at least so certain."
    )
    urgency: Literal["Immediate", "Expected", "Future"] = Field(
        default="Expected", description="Alerts at least so urgent."
    )
    events: list[str] = Field(
        default=[], description='Only these kinds of alerts, as "Hurricane Warning". Empty: all.'
    )
    ignore: list[str] = Field(default=[], description="Never these.")
    lead: Duration = Field(
        default=3600.0,
        json_schema_extra={"default": "1h"},
        description="An alert counts so long before what it warns of begins.",
    )
    longest: Duration = Field(
        default=86400.0,
        json_schema_extra={"default": "24h"},
        description="An alert that does not say when it ends counts for so long.",
    )
    earthquake_age: Duration = Field(
        default=21600.0, json_schema_extra={"default": "6h"}, description="An earthquake counts for so long."
    )
    evacuate: Literal["dry-run", "approve", "automatic"] = Field(
        default="dry-run",
        description="dry-run: tell what would be done. approve: when somebody agrees. automatic: at once, if "
        "the hazard is as severe as automatic_severity.",
    )
    automatic_severity: Severity = Field(
        default="Extreme", description="With automatic: what is less severe waits for approval."
    )
    hold: Duration = Field(
        default=7200.0,
        json_schema_extra={"default": "2h"},
        description="A site stays in danger for so long after its last hazard.",
    )
    at_most: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Evacuations that are ordered within `per`, at most."
    )
    per: Duration = Field(default=3600.0, json_schema_extra={"default": "1h"}, description="See at_most.")
    timeout: Duration = Field(
        default=10.0,
        json_schema_extra={"default": "10s"},
        description="A feed that says nothing for so long has not answered; nor one that takes three times "
        "as long in all.",
    )
    contact: str = Field(
        default="", max_length=100, description="Mail address for User-Agent; the weather service wants one."
    )
    feed: list[HazardFeed] = Field(description="Feeds: `[[hazards.feed]]`.")
    earthquake: list[HazardQuake] = Field(
        default=[],
        description="Which earthquakes are hazards: `[[hazards.earthquake]]`. None: no earthquake is.",
    )
