"""The simulated world that production code is proved in: disks that lose writes, faults on demand."""
