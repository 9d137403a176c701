"""Causal variables behind observations, their graph, and what happens when something is done."""
