"""Documents as public feeds write them, made by their specifications, and a server for them on 127.0.0.1.

NWS: GeoJSON of api.weather.gov. CAP 1.2 (OASIS). USGS: GeoJSON summary format. Nothing was recorded from
a real alert.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW = 1_795_000_000.0
SENDER = "w-nws.webmaster@noaa.gov"
BOX = [[-96.0, 29.0], [-95.0, 29.0], [-95.0, 30.0], [-96.0, 30.0], [-96.0, 29.0]]
"""Houston is in it."""


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def nws_feature(number: int = 1, rings: Any = (BOX,), now: float = NOW, **about: Any) -> dict[str, Any]:
    """An alert; keys of `about` take the place of its properties."""
    name = f"urn:oid:2.49.0.1.840.0.{number:040x}.001.1"
    properties = {
        "@type": "wx:Alert",
        "id": name,
        "areaDesc": "Harris, TX",
        "geocode": {"SAME": ["048201"], "UGC": ["TXC201"]},
        "affectedZones": ["https://api.weather.gov/zones/county/TXC201"],
        "references": [],
        "sent": iso(now - 600),
        "effective": iso(now - 600),
        "onset": iso(now - 300),
        "expires": iso(now + 1800),
        "ends": iso(now + 3600),
        "status": "Actual",
        "messageType": "Alert",
        "category": "Met",
        "severity": "Extreme",
        "certainty": "Observed",
        "urgency": "Immediate",
        "event": "Tornado Warning",
        "sender": SENDER,
        "senderName": "NWS Houston/Galveston TX",
        "headline": "Tornado Warning issued by NWS Houston/Galveston TX",
        "description": "...",
        "response": "Shelter",
        "parameters": {"VTEC": ["/O.NEW.KHGX.TO.W.0001/"]},
    }
    geometry = None if rings is None else {"type": "Polygon", "coordinates": [list(r) for r in rings]}
    document = {"id": f"https://api.weather.gov/alerts/{name}", "type": "Feature", "geometry": geometry}
    return document | {"properties": properties | about}


def nws(*features: Any, now: float = NOW) -> bytes:
    head = {"@context": [], "type": "FeatureCollection", "title": "Current watches, warnings, and advisories"}
    return json.dumps(head | {"features": list(features), "updated": iso(now)}).encode()


def reference(number: int, sender: str = SENDER) -> dict[str, Any]:
    name = f"urn:oid:2.49.0.1.840.0.{number:040x}.001.1"
    return {"@id": f"https://api.weather.gov/alerts/{name}", "identifier": name, "sender": sender}


def quake_feature(name: str = "us7000abcd", now: float = NOW, where: Any = None, **about: Any) -> Any:
    properties = {
        "mag": 6.1,
        "place": "12 km SSW of Houston, Texas",
        "time": round((now - 600) * 1000),
        "updated": round((now - 300) * 1000),
        "status": "automatic",
        "tsunami": 0,
        "ids": f",{name},",
        "type": "earthquake",
    }
    position = {"type": "Point", "coordinates": [-95.4, 29.7, 10.0] if where is None else where}
    return {"type": "Feature", "properties": properties | about, "geometry": position, "id": name}


def usgs(*features: Any, now: float = NOW) -> bytes:
    about = {"generated": round(now * 1000), "title": "USGS Magnitude 4.5+ Earthquakes", "status": 200}
    document = {"type": "FeatureCollection", "metadata": about, "features": list(features)}
    return json.dumps(document).encode()


POLYGON = "29.0,-96.0 29.0,-95.0 30.0,-95.0 30.0,-96.0 29.0,-96.0"


def cap(
    number: int = 1,
    area: str = f"<polygon>{POLYGON}</polygon>",
    now: float = NOW,
    status: str = "Actual",
    kind: str = "Alert",
    references: str = "",
    more: str = "",
    severity: str = "Extreme",
    sender: str = SENDER,
) -> str:
    """One message; `more` stands in its <info>."""
    name = f"urn:oid:2.49.0.1.840.0.{number:040x}.001.1"
    told = f"<references>{references}</references>" if references else ""
    return f"""<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>{name}</identifier>
<sender>{sender}</sender><sent>{iso(now - 600)}</sent><status>{status}</status><msgType>{kind}</msgType>
<scope>Public</scope>{told}<info><language>en-US</language><category>Met</category>
<event>Hurricane Warning</event><responseType>Evacuate</responseType><urgency>Expected</urgency>
<severity>{severity}</severity><certainty>Likely</certainty><effective>{iso(now - 600)}</effective>
<onset>{iso(now - 300)}</onset><expires>{iso(now + 3600)}</expires><headline>Hurricane</headline>{more}
<area><areaDesc>Harris, TX</areaDesc>{area}</area></info></alert>"""


@dataclass
class Server:
    """What is answered to GET, by path, and what was asked."""

    url: str
    documents: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stalls: set[str] = field(default_factory=set)
    drips: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port. It knows ETags: a document is asked for with its tag, and answered by 304."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path
            server.asked.append((path, dict(self.headers)))
            if path in server.stalls:
                server.ended.wait()
                return
            if path in server.drips:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
                with contextlib.suppress(OSError):
                    while not server.ended.wait(0.02):
                        self.wfile.write(b"x")
                return
            body = server.documents.get(path)
            status = server.status.get(path, 200 if body is not None else 404)
            more = server.headers.get(path, {})
            if status == 200 and more.get("ETag") and self.headers.get("If-None-Match") == more["ETag"]:
                status = 304
            self.send_response(status)
            for key, value in more.items():
                self.send_header(key, value)
            sent = body if status == 200 and body is not None else b""
            self.send_header("Content-Length", more.get("X-Length", str(len(sent))))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()
