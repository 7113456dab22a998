"""Many models: lists of them, their scans here or on a cluster, and what came out."""
