"""Every line that knows Keras or a backend."""
