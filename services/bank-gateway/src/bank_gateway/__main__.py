"""`python -m bank_gateway`."""

from bank_gateway.main import main

main()
