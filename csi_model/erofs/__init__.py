"""EROFS images: a tree of inodes to the bytes of a metadata image. No I/O."""
