"""The command diffusion-perception: one module per sub-command, which parses, calls and prints."""
