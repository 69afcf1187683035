"""How fast training is, and what of the time is unavoidable: products, optimizer, input, host."""
