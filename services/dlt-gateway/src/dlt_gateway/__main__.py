"""`python -m dlt_gateway`."""

from dlt_gateway.main import main

main()
