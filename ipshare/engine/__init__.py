"""What a node's data path knows and does, whatever runs it.

protocol (what every engine can do), tables and desired (what it should know), plan (how to get there),
embedded (ipshare-engine), memory (the C core in this process), and words for people: plan_text,
packet_words, packet_text, asking (why), totals (counters), moved (who a policy's change moves), within
(which bindings a prefix has).
"""
