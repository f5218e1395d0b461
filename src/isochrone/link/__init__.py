"""Messages between controllers: bytes to messages and back (no I/O), and the connection that carries them."""
