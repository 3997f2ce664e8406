"""Who does the slow work: the loop that leases ranges of the log, and the embedding consumer."""
