"""The OCI distribution protocol over HTTP: authentication, redirects, retries, ranges."""
