"""The assay: train here, measure there. study -> plan -> engine -> store -> result -> analysis -> expectation -> report."""
