"""Training for shift: methods that use several domains of the source, and unlabelled ones where the task grants them."""
