"""The network in strips: exact, fast and in bounded memory. `network.run` is the door."""
