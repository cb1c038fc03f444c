"""ipshare: a public IP address that outlives the place where it is served."""

__version__ = "0.1.0"
