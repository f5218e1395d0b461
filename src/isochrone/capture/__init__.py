"""The primary's side of remote copy: stamp, mark, capture, hold until hardened (S3, S4; design sections 4 and 6)."""
