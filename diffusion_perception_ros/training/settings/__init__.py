"""Settings of a training run, as data: nothing here imports torch, diffusers or what runs with them."""
