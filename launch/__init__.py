"""What starts jaxcoder on many machines, and what is checked before."""
