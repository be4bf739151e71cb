"""jaxcoder: train, evaluate and ship medical coding language models with JAX."""

__version__ = "0.1.0"
