"""Random histories: a store driven by drawn steps, beside a model in memory of what it must hold."""
