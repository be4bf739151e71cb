"""Token records: contacts serialised, tokenised, labelled."""
