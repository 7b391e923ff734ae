"""Trees: tar headers and raw layers merged into the inodes of a view. Pure functions, no I/O."""
