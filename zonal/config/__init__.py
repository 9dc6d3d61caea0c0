"""What people write: settings, workflows, the catalog. Opens no data file."""
