"""A pytest plugin that puts another build of the C core behind ``ipshare.core``: -p tests.sanitized_door.

IPSHARE_TEST_CORE names the extension module. It has to be here before the package imports its own.
"""

import importlib.util
import os
import sys

NAME = "ipshare.core._native"
_spec = importlib.util.spec_from_file_location(NAME, os.environ["IPSHARE_TEST_CORE"])
assert _spec and _spec.loader and NAME not in sys.modules
sys.modules[NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[NAME])
