"""Tables with a column that says where a row comes from, and scikit-learn learners."""
