"""Hazards: severe weather and earthquakes near a site become findings, findings become evacuations.

feed (one document over HTTP) -> nws, cap, usgs (bytes -> alerts, quakes; what is not sound is refused and
counted) -> look (which alerts are current and meet which site) -> evacuations (which site is to be left, and
who has to agree). All but fetch and poller are pure: time comes in as a parameter. Nothing here moves
anything: the caller carries evacuations out, by ipshare.placement. Requirement: SYSTEMS.md S1.13.
"""
