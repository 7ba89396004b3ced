"""Commands of the command line that work on a whole Runtime, one module per subject."""
