"""NumPy dtypes of C structs, read off the compiled module.

A record's layout is written once, in ``native/ips_api.h``; sizes and offsets
come from the compiler, so padding cannot differ between C and NumPy.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ipshare.core._native import ffi


@cache
def dtype(name: str) -> np.dtype[Any]:
    """The structured dtype of C type ``name`` (``"struct ips_binding_rec"``).

    Addresses are fields of 16 ``u1``. Raises ``TypeError`` for a member that is
    neither an integer, an array nor a struct.
    """
    return _dtype(ffi.typeof(name))


def _dtype(ctype: Any) -> np.dtype[Any]:
    if ctype.kind == "primitive":
        return np.dtype(f"{_sign(ctype)}{ffi.sizeof(ctype)}")
    if ctype.kind == "enum":
        return np.dtype(f"u{ffi.sizeof(ctype)}")
    if ctype.kind == "array":
        return np.dtype((_dtype(ctype.item), (ctype.length,)))
    if ctype.kind == "struct":
        fields = ctype.fields
        return np.dtype(
            {
                "names": [name for name, _ in fields],
                "formats": [_dtype(field.type) for _, field in fields],
                "offsets": [field.offset for _, field in fields],
                "itemsize": ffi.sizeof(ctype),
            }
        )
    raise TypeError(f"{ctype.cname}: no NumPy type for this")


def text(field: Any) -> str:
    """A zero-terminated ``char`` array of a record."""
    raw: bytes = field.tobytes()
    return raw.split(b"\0")[0].decode(errors="replace")


def _sign(ctype: Any) -> str:
    return "i" if int(ffi.cast(ctype, -1)) < 0 else "u"
