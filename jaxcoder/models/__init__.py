"""The model: encoder, label attention, coder."""
