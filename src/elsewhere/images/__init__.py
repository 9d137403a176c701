"""Pictures: digits and their shifts, other people's handwriting, learners on pictures."""
