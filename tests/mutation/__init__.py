"""Mutation testing: do the tests notice small mistakes in the code? ``python -m tests.mutation --help``."""
