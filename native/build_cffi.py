"""cffi build of the C core: ips_api.h and its kin are what Python sees, all .c files here are compiled in.

No list of functions or sources is kept here: the header is read with its
preprocessor lines removed, the sources are whatever lies beside this file.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent


def declarations(header: Path) -> str:
    """The header's text without preprocessor lines, as cffi's parser wants it."""
    return "".join(line for line in header.read_text().splitlines(keepends=True) if not line.startswith("#"))


ffibuilder = FFI()
CONTROL = [HERE / f"ips_control{part}.h" for part in ("", "_flows", "_natlog", "_remap", "_dispatch")]
API = [HERE / "ips_api.h", *sorted(HERE.glob("ips_*_api.h")), *CONTROL]
for header in API:
    ffibuilder.cdef(declarations(header))
ffibuilder.set_source(
    "ipshare.core._native",
    "".join(f'#include "{header.name}"\n' for header in API),
    sources=[f"native/{path.name}" for path in sorted(HERE.glob("*.c"))],
    include_dirs=["native"],
    depends=[f"native/{path.name}" for pattern in ("*.h", "*.def") for path in sorted(HERE.glob(pattern))],
    extra_compile_args=[
        *("-O3", "-std=gnu11", "-fvisibility=hidden"),
        *("-Wall", "-Wextra", "-Werror=implicit-function-declaration"),
        f"-ffile-prefix-map={HERE.resolve().parent}=.",  # the same file from every checkout
    ],
    libraries=["pthread", "crypto"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
