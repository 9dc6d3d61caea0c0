"""The built-in sample: a made-up town and its tiles."""
