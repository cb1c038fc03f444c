"""IPFIX messages, read from RFC 7011 alone: an independent second reader of what the C core writes.

A collector keeps templates of one observation domain and hands out data records as dicts of element number
to bytes. Whatever RFC 7011 forbids is an assertion here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

Fields = list[tuple[int, int]]
ADDRESSES = {8, 12, 27, 28, 225, 226, 281, 282}


@dataclass
class Collector:
    templates: dict[int, Fields] = field(default_factory=dict)
    scopes: dict[int, int] = field(default_factory=dict)
    next_sequence: int | None = None
    missed: int = 0  # data records, as the sequence numbers tell
    unknown: int = 0  # data sets without a template

    def read(self, message: bytes) -> list[dict[int, bytes]]:
        version, length, self.export_time, sequence, self.domain = struct.unpack_from("!HHIII", message)
        assert version == 10 and length == len(message)
        records, at = [], 16
        while at < length:
            set_id, size = struct.unpack_from("!HH", message, at)
            assert size >= 4 and at + size <= length
            body = message[at + 4 : at + size]
            if set_id in (2, 3):
                self._templates(body, options=set_id == 3)
            else:
                assert set_id >= 256
                records += self._data(set_id, body)
            at += size
        if self.next_sequence is not None:
            self.missed += (sequence - self.next_sequence) % 2**32
        self.next_sequence = (sequence + len(records)) % 2**32
        return records

    def _templates(self, body: bytes, *, options: bool) -> None:
        at = 0
        while at < len(body):
            number, count = struct.unpack_from("!HH", body, at)
            assert number >= 256 and count > 0
            at += 4
            if options:
                (self.scopes[number],) = struct.unpack_from("!H", body, at)
                assert 0 < self.scopes[number] <= count
                at += 2
            fields = [struct.unpack_from("!HH", body, at + 4 * i) for i in range(count)]
            assert all(element < 0x8000 and 0 < size < 0xFFFF for element, size in fields)
            at += 4 * count
            assert self.templates.setdefault(number, fields) == fields, "changed without a withdrawal"

    def _data(self, number: int, body: bytes) -> list[dict[int, bytes]]:
        if number not in self.templates:
            self.unknown += 1
            return []
        fields, records, at = self.templates[number], [], 0
        size = sum(bytes_ for _, bytes_ in fields)
        while len(body) - at >= size:
            record = {-1: number.to_bytes(2, "big")}
            for element, bytes_ in fields:
                assert element not in record
                record[element] = body[at : at + bytes_]
                at += bytes_
            records.append(record)
        assert not any(body[at:]), "padding is zero"
        return records


def plain(record: dict[int, bytes]) -> dict[int, int | str]:
    """Numbers and address texts."""
    return {
        element: str(ip_address(value)) if element in ADDRESSES else int.from_bytes(value, "big")
        for element, value in record.items()
    }
