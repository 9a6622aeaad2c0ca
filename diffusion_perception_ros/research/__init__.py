"""The papers' experiments: ablations, test-time compute, creation of pairs. Nothing of the product imports this."""
