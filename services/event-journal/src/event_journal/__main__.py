"""`python -m event_journal`."""

from event_journal.main import main

main()
