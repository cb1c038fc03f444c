"""ipshare.appliance: the image that boots into a node, and what runs inside it to set it up and to update it.

At the builder's machine: packages -> rootfs (Debian's root and ours, as one tar stream) -> slot image -> disk
(layout, grub) -> raw, qcow2, checksums, bill of materials; seed writes what a box is told at its first boot;
bundle signs updates. At the box: firstboot applies a seed, slots and health decide which of two slots boots,
install writes the other one. Modules that plan (layout, grub, packages, overlay, sbom, network, seed) start
nothing and read no clock. docs/appliance.md.
"""
