"""Real controllers under load, met by real faults one after the other, for as long as you like. `make soak`."""
