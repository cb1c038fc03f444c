"""``python -m ipshare``: the same as the command ``ipshare``."""

import sys

from ipshare.cli import main

sys.exit(main())
