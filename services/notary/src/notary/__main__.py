"""`python -m notary`."""

from notary.main import main

main()
