"""Graphs: nodes without neighbours, and text that knows its neighbourhood."""
