"""The node's content-addressed store: verified files, unfinished ingests, and what the files cannot say."""
