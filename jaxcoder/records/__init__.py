"""From a source to contact records."""
