"""What a configuration can ask of the machine under its VPP, and every mistake in that."""

from __future__ import annotations

from tests.cases.config_mistakes import GOOD_VPP
from tests.cases.config_mistakes import Mistake as M

GOOD_METAL = GOOD_VPP.replace(
    'api_socket = "/run/vpp/api.sock"\n',
    """managed = true
main_core = 1
worker_cores = [2, 3]
isolate_cores = true
statseg_size = "128MiB"
[[vpp.hugepages]]
count = 1024
[[vpp.hugepages]]
size = "1GiB"
count = 2
numa = 1
[[vpp.dpdk]]
device = "0000:03:00.0"
name = "wan"
rx_queues = 2
[[vpp.dpdk]]
device = "ens5"
""",
)
METAL_MISTAKES = [
    M("[2, 3]", "[2, 2] #!", "vpp.worker_cores[1]", "core 2 is in worker_cores twice", "of its own"),
    M("[2, 3]", "[2, 1] #!", "vpp.worker_cores[1]", "core 1 is main_core and that of a worker", "another"),
    M("[2, 3]", "[2, -3] #!", "vpp.worker_cores[1]", "at least 0, not -3"),
    M("[2, 3]", '"2-3" #!', "vpp.worker_cores", "must be an array"),
    M("[2, 3]", "[]", "vpp.isolate_cores", "isolate_cores without worker_cores"),
    M("[2, 3]", f"{list(range(2, 67))} #!", "vpp.worker_cores", "65 worker_cores", "fewer"),
    M("main_core = 1", "", "vpp.isolate_cores", "isolate_cores without main_core", "main_core = 1"),
    M('kind = "vpp"', 'kind = "vpp"\nworkers = 3 #!', "engine.workers", "3 workers, and 2 worker_cores"),
    M('"128MiB"', "0 #!", "vpp.statseg_size", "statseg_size is zero", "default"),
    M('"1GiB"', '"3MiB" #!', "vpp.hugepages[1].size", "no hugepage has 3145728 bytes", '"2MiB"'),
    M('"1GiB"', "0 #!", "vpp.hugepages[1].size", "no hugepage has 0 bytes"),
    M("count = 2\n", "count = 0 #!\n", "vpp.hugepages[1].count", "at least 1, not 0"),
    M("count = 2\n", "", "vpp.hugepages[1]", "key 'count' is missing", "How many"),
    M("numa = 1", "numa = -1 #!", "vpp.hugepages[1].numa", "at least 0"),
    M(
        '[[vpp.hugepages]]\nsize = "1GiB"\ncount = 2\nnuma = 1',
        '[[vpp.hugepages]] #!\nsize = "2MiB"\ncount = 2',
        "vpp.hugepages[1]",
        "on NUMA node 0 are in number 1 too",
        "one count",
    ),
    M('"0000:03:00.0"', '"03:00.0" #!', "vpp.dpdk[0].device", "not a PCI address: '03:00.0'", "0000:03:00.0"),
    M('"0000:03:00.0"', '"0000:03:20.0" #!', "vpp.dpdk[0].device", "not a PCI address", "lspci -D"),
    M('"0000:03:00.0"', '"03.0" #!', "vpp.dpdk[0].device", "not a PCI address: '03.0'", "lspci"),
    M('"ens5"', '"0000:03:00.0" #!', "vpp.dpdk[1].device", "0000:03:00.0 is number 1", "leave one"),
    M('"ens5"', '"up0" #!', "vpp.dpdk[1].device", "up0 is `host` of an [[interface]]"),
    M('"ens5"', '"a-name-of-16-byt" #!', "vpp.dpdk[1].device", "Linux allows 1 to 15"),
    M('"ens5"', '"ens5"\nname = "wan" #!', "vpp.dpdk[1].name", "the name 'wan' is that of number 1"),
    M("rx_queues = 2", "rx_queues = 0 #!", "vpp.dpdk[0].rx_queues", "at least 1, not 0"),
    M("rx_queues = 2", "tx_descriptors = 0 #!", "vpp.dpdk[0].tx_descriptors", "at least 32, not 0"),
    M("rx_queues = 2", "rx_queue = 2 #!", "vpp.dpdk[0].rx_queue", "unknown key", "'rx_queues'?"),
]
