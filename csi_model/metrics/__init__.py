"""What a monitoring system sees of the driver: Prometheus metrics and the health of the process, over a small HTTP server.

Read only: nothing here changes what the driver does, and nothing below knows that it is being watched.
"""
