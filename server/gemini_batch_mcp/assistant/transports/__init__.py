"""The two ways to a client, standard input and output, and HTTP: every message is answered, and both end when told."""
