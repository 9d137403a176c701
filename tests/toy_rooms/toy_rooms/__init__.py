"""Four foreign rooms: a graph, rankings, a generator, ragged masks."""
