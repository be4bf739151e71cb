"""Export: a trained coder for those who serve it without jaxcoder."""
