"""Random input for every reader of bytes from elsewhere. `make fuzz` runs each target for ten minutes."""
