"""The broker beside the real things that it meets in the field, each started here; run by make test-outside."""
