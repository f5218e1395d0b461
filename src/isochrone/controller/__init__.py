"""The process: wires the rooms to sockets, disks and the clock. The only room that knows all others."""
