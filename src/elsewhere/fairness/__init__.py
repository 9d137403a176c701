"""Who pays: groups of people, and how fair networks treat them."""
