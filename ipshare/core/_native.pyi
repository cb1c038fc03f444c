# The compiled module; its contents are native/ips_api.h and native/ips_control.h.
from typing import Any

ffi: Any
lib: Any
