"""Fan-out inside one process: from a change to the connections that may see it."""
