"""System calls, one small function each; errno is the error."""
