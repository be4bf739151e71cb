"""A cohort of our own, generated from tables that a clinician can read and extend."""
