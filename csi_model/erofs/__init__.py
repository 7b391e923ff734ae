"""EROFS images as values: a tree of nodes becomes the few kilobytes of metadata that point into layer files. No I/O."""
