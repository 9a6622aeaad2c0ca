"""The way from a network, published or trained here, to a model folder."""
