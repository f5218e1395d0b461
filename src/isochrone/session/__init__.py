"""Sessions at the secondary: what should happen next. Handshakes, states, commands, recovery; pure decisions."""
