"""Extract and load: raw CSV files from the landing zone into the `raw` schema, untransformed."""
