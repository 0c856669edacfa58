#!/usr/bin/env python3
"""make_topo.py - machines for tests/unit/test_topo_plan.c, as hwloc 2 would record them.

    python3 tests/ref/make_topo.py        writes tests/data/topo/*.xml

A machine is packages of one NUMA node each, cores with SMT numbered as Linux does (all first threads, then
all second ones), and PCI slots: bridge, devices behind it, their names in the operating system.
"""
import pathlib

GPU, VGA, IB, ETH = "0302", "0300", "0207", "0200"
OS_TYPE = {IB: 3, ETH: 2}  # hwloc's openfabrics, network


class Writer:
    def __init__(self):
        self.lines, self.depth, self.n_objects = [], 1, 0

    def open(self, kind, **attrs):
        self.n_objects += 1
        attrs["gp_index"] = self.n_objects
        self.lines.append("  " * self.depth + f'<object type="{kind}" ' +
                          " ".join(f'{k}="{v}"' for k, v in attrs.items()) + ">")
        self.depth += 1

    def close(self):
        self.depth -= 1
        self.lines.append("  " * self.depth + "</object>")


def sets(pus, node):
    """cpuset and nodeset attributes of an object."""
    cpu = f"0x{sum(1 << p for p in pus):x}"
    mem = f"0x{node:x}"
    return dict(cpuset=cpu, complete_cpuset=cpu, nodeset=mem, complete_nodeset=mem)


def slot(w, bus, devices):
    """A bridge and what is behind it: [(class, name)]."""
    w.open("Bridge", bridge_type="1-1", depth="1", bridge_pci=f"0000:[{bus:02x}-{bus:02x}]",
           pci_busid=f"0000:00:{bus >> 3:02x}.{bus & 7}", pci_type="0604 [1234:0001] [0000:0000] 00",
           pci_link_speed="0.0")
    for i, (kind, name) in enumerate(devices):
        w.open("PCIDev", pci_busid=f"0000:{bus:02x}:{i:02x}.0",
               pci_type=f"{kind} [1234:0002] [0000:0000] 00", pci_link_speed="0.0")
        if name:
            w.open("OSDev", name=name, osdev_type=OS_TYPE[kind])
            w.close()
        w.close()
    w.close()


def root_bridge(w, slots):
    if slots:
        w.open("Bridge", bridge_type="0-1", depth="0", bridge_pci="0000:[00-ff]")
        for bus, devices in slots:
            slot(w, bus, devices)
        w.close()


def machine(name, packages, cores, smt, slots):
    """slots: per package, [(bus, devices)]."""
    w = Writer()
    n_all = packages * cores

    def threads(core):
        return [core + t * n_all for t in range(smt)]

    all_pus = range(n_all * smt)
    whole = sets(all_pus, (1 << packages) - 1)
    w.open("Machine", os_index=0, allowed_cpuset=whole["cpuset"], allowed_nodeset=whole["nodeset"], **whole)
    for p in range(packages):
        mine = range(p * cores, (p + 1) * cores)
        s = sets([t for c in mine for t in threads(c)], 1 << p)
        w.open("Package", os_index=p, **s)
        w.open("NUMANode", os_index=p, local_memory=1 << 36, **s)
        w.close()
        for c in mine:
            w.open("Core", os_index=c, **sets(threads(c), 1 << p))
            for t in threads(c):
                w.open("PU", os_index=t, **sets([t], 1 << p))
                w.close()
            w.close()
        root_bridge(w, slots[p])
        w.close()
    w.close()
    head = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE topology SYSTEM "hwloc2.dtd">',
            '<topology version="2.0">']
    path = pathlib.Path(__file__).parent.parent / "data/topo" / (name + ".xml")
    path.write_text("\n".join(head + w.lines + ["</topology>"]) + "\n")


def main():
    gpu, no_name = (GPU, ""), (VGA, "")
    machine("workstation", 1, 8, 2, [[(0x01, [no_name]), (0x02, [no_name]), (0x05, [(ETH, "eth0")])]])
    machine("gpus8", 2, 12, 2,
            [[(0x08, [(ETH, "eth0")])] + [(0x10 + 0x10 * i, [gpu, (IB, f"ib{i}")]) for i in range(4)],
             [(0x90 + 0x10 * i, [gpu, (IB, f"ib{4 + i}")]) for i in range(4)]])
    machine("slurm", 2, 8, 1,
            [[(0x21, [gpu]), (0x22, [gpu]), (0x31, [(ETH, "eth0")])],
             [(0xa1, [gpu]), (0xa2, [gpu]), (0xb1, [(ETH, "eth1")])]])
    machine("plain", 2, 4, 2, [[], []])


main()
