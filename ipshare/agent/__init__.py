"""The daemon of one node, and what it is made of.

netspec (Config -> what the kernel must be told), codec and store (what was applied, on disk), confirm (the
timer of a trial), reconcile (one pass: tables, then routes), datapath (which engine, which kernel), probe
(path MTU), server and client (the control socket), daemon (the loop that ties them together), notify
(systemd).
"""
