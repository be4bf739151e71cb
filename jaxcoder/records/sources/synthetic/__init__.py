"""A cohort of our own: contacts generated from tables of conditions that a clinician can read and extend."""
