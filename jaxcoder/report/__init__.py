"""A report of a run: one page for people, from the files that an evaluation leaves."""
