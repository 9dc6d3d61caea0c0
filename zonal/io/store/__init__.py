"""Files on any store: byte ranges with their retries, whole writes, locks."""
