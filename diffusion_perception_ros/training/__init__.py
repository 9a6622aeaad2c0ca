"""The trainer: settings, tasks, losses and the loop for all networks; writes checkpoints."""
