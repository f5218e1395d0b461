"""The NBD protocol: bytes to requests and back without I/O, the asyncio server over it, a small client."""
