"""Isochrone measured beside nbdkit and qemu-nbd: same backing, same fio jobs, in turn. `make bench`."""
