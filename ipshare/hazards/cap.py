"""CAP 1.2 (OASIS): every <alert> anywhere in an XML document -> Parsed.

A single message, a list of them, or an Atom feed that holds them in its entries; what an Atom feed only
links to is not fetched. Positions are "latitude,longitude", circles "latitude,longitude km". The reader is
expat, streaming: a document type or an entity declaration ends it (no expansion, no external entity),
depth, elements and text are bounded. Signatures are not verified: who may speak is decided by TLS. Pure.
"""

from __future__ import annotations

from typing import Any, NoReturn
from xml.parsers import expat

from ipshare.hazards.geometry import BadShape, Circle, Polygon, circle
from ipshare.hazards.model import CERTAINTIES, SEVERITIES, URGENCIES, Alert, Area, Info, Key, Parsed, Unsound
from ipshare.hazards.nws import Shapes
from ipshare.hazards.reading import (
    MOST_ALERTS,
    MOST_BYTES,
    MOST_CODES,
    MOST_REFERENCES,
    code,
    name,
    optional_text,
    optional_time,
    text,
    time,
    word,
)

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
MOST_DEPTH = 32
MOST_ELEMENTS = 500_000
MOST_INFOS = 20
MOST_AREAS = 200
MOST_SHAPES = 2_000
"""Polygons and circles of one area."""


class Element:
    """An element of an alert: the texts and the children of each name, in order."""

    __slots__ = ("children", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.children: dict[str, list[Element]] = {}

    def all(self, tag: str) -> list[Element]:
        return self.children.get(tag, [])

    def value(self, tag: str) -> str | None:
        """The text of the first child of that name."""
        found = self.all(tag)
        return "".join(found[0].text).strip() if found else None

    def values(self, tag: str) -> list[str]:
        return ["".join(child.text).strip() for child in self.all(tag)]


def parse(document: bytes) -> Parsed:
    """Raises Unsound if the document as a whole is no sound XML."""
    if len(document) > MOST_BYTES:
        raise Unsound("too long")
    reader = _Reader()
    try:
        reader.parser.Parse(document, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, Unsound):
            raise
        raise Unsound("not XML") from None
    return reader.found


class _Reader:
    def __init__(self) -> None:
        self.found = Parsed()
        self.shapes = Shapes(self.found.refused)
        self.depth = self.elements = 0
        self.open: list[Element] = []
        """The elements of the alert that is being read, outermost first."""
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = _refuse
        self.parser.EntityDeclHandler = _refuse
        self.parser.ExternalEntityRefHandler = _refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > MOST_DEPTH:
            raise Unsound("too deep")
        if self.elements > MOST_ELEMENTS:
            raise Unsound("too many elements")
        space, _, local = tag.rpartition(" ")
        if self.open or (space == NAMESPACE and local == "alert"):
            element = Element()
            if self.open:
                self.open[-1].children.setdefault(local if space == NAMESPACE else tag, []).append(element)
            self.open.append(element)

    def _text(self, some: str) -> None:
        if self.open:
            self.open[-1].text.append(some)

    def _end(self, _: str) -> None:
        self.depth -= 1
        if not self.open:
            return
        element = self.open.pop()
        if self.open:
            return
        if len(self.found.alerts) >= MOST_ALERTS:
            raise Unsound("too many alerts")
        try:
            self.found.alerts.append(_alert(element, self.shapes))
        except Unsound as error:
            self.found.refused[str(error)] += 1


def _refuse(*_: Any) -> NoReturn:
    raise Unsound("XML with a document type")


def _alert(element: Element, shapes: Shapes) -> Alert:
    key = (name(element.value("sender"), "sender"), name(element.value("identifier"), "identifier"))
    sent = time(element.value("sent"), "time sent")
    status, kind = text(element.value("status"), "status"), text(element.value("msgType"), "message type")
    infos = []
    for info in element.all("info")[:MOST_INFOS]:
        try:
            infos.append(_info(info, sent, shapes))
        except Unsound as error:
            shapes.refused[str(error)] += 1
    return Alert(key, sent, status, kind, _references(element.value("references")), tuple(infos))


def _info(element: Element, sent: float, shapes: Shapes) -> Info:
    onset = optional_time(element.value("onset"), "onset")
    effective = optional_time(element.value("effective"), "effective")
    until = optional_time(element.value("expires"), "end")
    for parameter in element.all("parameter"):  # the weather service's own: the end of the event itself
        if parameter.value("valueName") == "eventEndingTime":
            until = optional_time(parameter.value("value"), "end") or until
    return Info(
        text(element.value("event"), "event"),
        word(element.value("severity"), SEVERITIES),
        word(element.value("certainty"), CERTAINTIES),
        word(element.value("urgency"), URGENCIES),
        next((at for at in (onset, effective) if at is not None), sent),
        until,
        _area(element.all("area")[:MOST_AREAS], shapes),
        optional_text(element.value("headline")),
        "AllClear" in element.values("responseType"),
    )


def _area(elements: list[Element], shapes: Shapes) -> Area:
    polygons: list[Polygon] = []
    circles: list[Circle] = []
    codes: set[str] = set()
    for element in elements:
        for written in element.values("polygon")[:MOST_SHAPES]:
            try:
                polygons.append(Polygon(shapes.ring(_positions(written))))
            except (BadShape, ValueError, IndexError) as error:
                reason = str(error) if isinstance(error, BadShape) else "not positions"
                shapes.refused[f"polygon: {reason}"] += 1
        for written in element.values("circle")[:MOST_SHAPES]:
            try:
                centre, radius = written.split()
                ((x, y),) = _positions(centre)
                circles.append(circle(x, y, float(radius)))
            except ValueError as error:
                reason = str(error) if isinstance(error, BadShape) else "not a circle"
                shapes.refused[f"circle: {reason}"] += 1
        for geocode in element.all("geocode")[:MOST_CODES]:
            if geocode.value("valueName") in ("UGC", "SAME", "FIPS6"):
                codes.add(code(geocode.value("value")))
    return Area(tuple(polygons), tuple(circles), frozenset(codes - {""}))


def _positions(written: str) -> list[tuple[float, float]]:
    """Longitude and latitude of each "latitude,longitude"."""
    found = []
    for pair in written.split():
        y, x = pair.split(",")
        found.append((float(x), float(y)))
    return found


def _references(written: str | None) -> tuple[Key, ...]:
    """From "sender,identifier,sent sender,identifier,sent"."""
    found = []
    for triple in (written or "").split()[:MOST_REFERENCES]:
        parts = triple.split(",")
        if len(parts) == 3 and parts[0] and parts[1]:
            found.append((parts[0], parts[1]))
    return tuple(found)
