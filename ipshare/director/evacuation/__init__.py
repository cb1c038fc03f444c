"""Evacuation: the director leaves a site or a node, asked by people or by hazards (SYSTEMS.md S1.12, S1.13).

places (a topology as placement sees it) -> record (an evacuation as a value: its steps, what became of each)
-> mover (one group moved and seen through, or taken back) -> runner (batches, kept in the store, gone on
with by the next director) ; watch (feeds -> hazards -> proposals) and verbs (what operators may ask) stand
beside it. Whatever moves goes through Director.change. docs/evacuation.md.
"""
