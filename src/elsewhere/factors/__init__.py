"""Factors of variation: grids of them, their splits, worlds of images, and how well each is read off."""
