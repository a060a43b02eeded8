"""One `fit`: what is planned, seen, done and saved of it."""
