"""The operators' page, and the process that serves it: reads from the services, and can change nothing."""
