"""What a takeover costs those who talk through a pair of NAT gateways: ipshare's, and keepalived with
conntrackd.

``python -m perf.pair`` (`make perf-pair`) measures; docs/performance-pair.md says what the figures mean.
Nothing asserts a time; that no committed session is lost is the exit code.
"""
