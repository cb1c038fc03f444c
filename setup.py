"""Builds the two compiled parts: the cffi door to the C core and the ipshare-engine binary.

Everything else about the package is in pyproject.toml. Both parts are compiled
from native/; the binary goes into ipshare/_bin so that a wheel carries it.
"""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent


class BuildNative(build_ext):
    """The ordinary extension build, and then ``make`` for the engine process."""

    def run(self) -> None:
        super().run()
        subprocess.run(["make", "-s", "-C", str(ROOT / "native"), "engine"], check=True)
        target = ROOT if self.inplace else Path(self.build_lib)
        self.mkpath(str(target / "ipshare" / "_bin"))
        self.copy_file(str(ROOT / "native/build/ipshare-engine"), str(target / "ipshare/_bin/ipshare-engine"))


setup(cffi_modules=["native/build_cffi.py:ffibuilder"], cmdclass={"build_ext": BuildNative})
