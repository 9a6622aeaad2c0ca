"""The fault campaign: what may happen to a node on a robot, done to the real one over DDS. `make faults` runs it."""
