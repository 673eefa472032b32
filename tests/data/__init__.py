"""Data of our own: small equivalents of the larger sets that may lie beside the checkout."""
