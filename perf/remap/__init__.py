"""Benchmark of remaps: an address there and back under load, its connections' telling delayed, one
distribution point late; beside it the same address moved by plain rules of nftables.

`python -m perf.remap` runs it. load.c makes connections and looks at every byte; ours.py has two
end points with agents and engines, plain.py kernels alone; scenario.py does with either what the table says.
"""
