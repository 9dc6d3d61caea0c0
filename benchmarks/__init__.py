"""What zonal costs, beside its peers and beside its own limits: `make bench`, `make bench-scale`."""
