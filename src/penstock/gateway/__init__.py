"""The path of one call: edges, router, pipeline, forward, worker."""
