"""The file of a purge, and the journal of a restore: what stands in them, and how a crash is read out of them."""
