"""`isochrone demo`: a site is lost in mid-write and recovered, before your eyes, and the result is proved."""
