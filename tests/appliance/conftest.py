"""Tests that boot an image in QEMU take minutes: they run where IPSHARE_APPLIANCE names the directory of a
built image (`make test-appliance`); no default run collects them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("IPSHARE_APPLIANCE") else ["test_*.py"]
