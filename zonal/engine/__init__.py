"""The table: a plan run on what the cluster gives, published with its manifest. Knows no finding."""
