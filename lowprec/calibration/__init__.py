"""From samples to the range of every tensor that is to be quantised."""
