"""What the toy rooms add to the catalogue: plain data."""

from elsewhere.catalogue import Entry, Option

ENTRIES = {
    "tasks": {
        "toy/communities": Entry("toy_rooms.graph:communities", "a graph with isolated nodes"),
        "toy/market": Entry("toy_rooms.rankings:market", "who buys what later"),
        "toy/daily": Entry("toy_rooms.generator:daily", "windows of a day, also for hours never seen"),
        "toy/clips": Entry("toy_rooms.clips:clips", "masks of objects in clips of different lengths"),
        "toy/quick": Entry("toy_rooms.quick:quick", "a task that takes no time"),
    },
    "learners": {
        "toy-teacher": Entry("toy_rooms.graph:Teacher", "smoothing over links, then logistic regression"),
        "toy-student": Entry("toy_rooms.graph:Student", "distils a teacher that trials share"),
        "toy-intensity": Entry("toy_rooms.rankings:Intensity", "relevance times rate"),
        "toy-harmonic": Entry("toy_rooms.generator:Harmonic", "a daily wave with noise"),
        "toy-threshold": Entry("toy_rooms.clips:Threshold", "bright pixels, adapted to each domain's light"),
        "toy-quick": Entry("toy_rooms.quick:Quick", "a learner that imports nothing heavy"),
        "toy-stacked": Entry("toy_rooms.quick:Stacked", "ridge regressions fitted many at once"),
    },
    "explainers": {
        "toy-hardest": Entry("toy_rooms.quick:Hardest", "names the hardest domain", (Option("metric", "text", "of the metric"),)),
    },
    "readers": {
        "toy-market": Entry("toy_rooms.rankings:read", "a table of purchases", (Option("later", "int", "the day after which it is later"),), (".market",)),
    },
}
