"""What the estimator of scikit-learn is made of: its parameters, its rows, its compiled functions."""
